"""The `gguf` stage: runs every test_* method of the suites and counts. See run.sh."""

import argparse
import functools
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE.parent / "peft"), str(ROOT / "taps")]

from original import Mix, Original
from suites import report, run
from test_acceptance import AcceptanceTests
from test_base import BaseTests
from test_imatrix import ImatrixTests
from test_tap import TapTests
from text import fixture_text

# Scripts of their own, each of which ends with 0 when all is well. (names/test_rows.py needs
# llama.cpp's source; what it found is recorded, and the unit tests hold the table against that.)
SCRIPTS = ("blocks/test_blocks.py", "headers/test_headers.py", "names/test_names.py")
MIXES = [Mix("Q4_0", "Q3_K", weighed=False), Mix("IQ4_NL", "Q2_K", weighed=True)]
EVERY_MIX = [
    Mix(others, long_rows, weighed)
    for others, long_rows in (("Q4_0", "Q4_0"), ("IQ4_NL", "IQ4_NL"), ("Q4_0", "Q3_K"), ("Q4_0", "Q2_K"))
    for weighed in (False, True)
]
TEXTS = ("calibration", "evaluation")


def run_script(name, daemon):
    done = subprocess.run([sys.executable, HERE / name], env=os.environ | {"QERA_DAEMON": daemon})
    print(f"{'ok' if done.returncode == 0 else 'FAILED'} {name}", flush=True)
    return (1, 0) if done.returncode == 0 else (0, 1)


def texts(source):
    """Text to record: a folder's, or that of the fixture."""
    if source:
        return {name: pathlib.Path(source, f"{name}.txt").read_text(encoding="utf-8")[: 1 << 20] for name in TEXTS}
    return {name: fixture_text(ROOT, name, 64) for name in TEXTS}


class Stage:
    """The suites by name; what two of them need is made once, in `work`."""

    def __init__(self, daemon, work, whole):
        self.daemon, self.work, self.whole = daemon, work, whole

    @functools.cached_property
    def acceptance(self):
        if self.whole:
            blocks, tokens, given, mixes = range(30), (4096, 2048), texts(os.environ.get("QERA_SMOLLM2")), EVERY_MIX
        else:
            blocks, tokens, given, mixes = (0, 15, 29), (3072, 2048), texts(None), MIXES
        original = Original(self.work / "smollm2", blocks, given, dict(zip(TEXTS, tokens)))
        return AcceptanceTests(self.daemon, original, mixes)

    def suites(self):
        suites = {name: lambda name=name: run_script(name, self.daemon) for name in SCRIPTS}
        suites["tap"] = lambda: run("tap", lambda: TapTests(self.work))
        suites["base"] = lambda: run("base", lambda: BaseTests(self.daemon, self.work))
        if self.whole:
            suites = {}
        suites["acceptance"] = lambda: run("acceptance", lambda: self.acceptance)
        suites["imatrix"] = lambda: run("imatrix", lambda: ImatrixTests(self.acceptance))
        return suites


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True, help="the qera-daemon binary")
    parser.add_argument("--whole", type=pathlib.Path, metavar="WORK", help="every block; what is in WORK stays there")
    parser.add_argument("suites", nargs="*", help="only those whose names contain one of these")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        stage = Stage(arguments.daemon, (arguments.whole or pathlib.Path(work)).resolve(), bool(arguments.whole))
        suites, parts = stage.suites(), arguments.suites
        wanted = [name for name in suites if not parts or any(part in name for part in parts)]
        results = [suites[name]() for name in wanted]
    report("gguf", results)


if __name__ == "__main__":
    main()
