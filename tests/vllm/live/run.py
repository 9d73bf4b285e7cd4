"""The `vllm` stage: runs every test_* method of the suites and counts. See run.sh."""

import argparse
import json
import os
import pathlib
import signal
import sys
import time
import warnings

import material  # first: it names the folders of the other stages' modules
import transformers
from stage import Stage
from suites import run
from test_base import BaseTests
from test_commands import CommandsTests
from test_float import FloatTests
from test_live import LiveTests
from test_overhead import OverheadTests
from test_rows import RowsTests
from test_swaps import SwapsTests

SUITES = {
    "base": BaseTests,
    "rows": RowsTests,
    "swaps": SwapsTests,
    "live": LiveTests,
    "float": FloatTests,
    "overhead": OverheadTests,
    "commands": CommandsTests,
}
LONG = {"swaps", "commands"}  # without QERA_TEST_TIER=long only where they are named


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True, help="the qera-daemon binary")
    parser.add_argument("--source", required=True, help="folder with model/, calibration.txt, evaluation.txt")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="where all is written")
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; see LONG")
    arguments = parser.parse_args()
    if unknown := set(arguments.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}")
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="TypedStorage")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and daemons end with their `with` blocks
    usual = SUITES.keys() if os.environ.get("QERA_TEST_TIER") == "long" else SUITES.keys() - LONG
    stage, failed = Stage(arguments.daemon, arguments.source, arguments.work), 0
    for name, suite in SUITES.items():
        if name in (arguments.suites or usual):
            begin = time.monotonic()
            passed, broken = run(name, lambda: suite(stage))
            failed += broken
            print(f"{name}: {passed} passed, {broken} failed, {time.monotonic() - begin:.0f} s", flush=True)
    figures = {name: round(figure, 4) for name, figure in stage.figures.items()}
    print(f"vllm: {json.dumps(figures)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
