"""The `peft` stage: runs every test_* method of the suites and counts. See run.sh."""

import argparse
import pathlib
import sys
import tempfile
import warnings

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "taps"))

import torch
import transformers
from daemon import Daemon
from fixture import ROOT
from picture import write_picture
from suites import report, run
from test_adapter import AdapterTests
from test_live import LiveTests
from test_packed import PackedTests
from test_table import TableTests
from test_tap import TapTests


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True, help="the qera-daemon binary")
    parser.add_argument("--write-table", action="store_true", help="print the table that docs/numbers.md carries")
    parser.add_argument("--write-picture", action="store_true", help="write docs/live.svg from a live run, and exit")
    parser.add_argument("--readme", type=pathlib.Path, default=ROOT / "README.md", help="whose code blocks are run")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="TypedStorage")
    torch.set_num_threads(1)
    readme = arguments.readme.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as work:
        daemon = Daemon(arguments.daemon, work)
        if arguments.write_picture:
            return write_picture(daemon)
        results = [
            run("adapter", lambda: AdapterTests(daemon)),
            run("tap", lambda: TapTests(daemon, readme)),
            run("live", lambda: LiveTests(daemon, readme)),
            run("packed", lambda: PackedTests(daemon)),
            run("table", lambda: TableTests(daemon, arguments.write_table)),
        ]
    report("peft", results)


if __name__ == "__main__":
    main()
