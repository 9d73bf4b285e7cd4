"""Records the shards of `run --job`: the first sequences of SmolLM2's calibration text, by the tap.

Runs on the python that `tests/peft/setup.sh` prints; `run` starts it.
"""

import argparse
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests/smollm2"), str(ROOT / "taps")]

import transformers
from recording import record
from source import Source


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="folder that tests/smollm2/source.sh made")
    parser.add_argument("--shards", required=True, type=pathlib.Path, help="where the shards go")
    parser.add_argument("--count", type=int, default=8, help="sequences of 1,024 tokens")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    record(Source(arguments.source), arguments.shards, arguments.count)


if __name__ == "__main__":
    main()
