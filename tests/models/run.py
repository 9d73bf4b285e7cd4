"""The `models` stage: runs every test_* method of the suites and counts. See run.sh."""

import argparse
import os
import pathlib
import sys
import tempfile
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests/peft"), str(ROOT / "taps")]

import torch
import transformers
from architectures import ARCHITECTURES
from daemon import Daemon
from suites import report, run
from more_architectures import EVERY_ARCHITECTURE
from test_architecture import ArchitectureTests, ListedArchitectureTests
from test_listed import LISTED, ListedTests
from test_tap_calls import TapCallsTests
from test_tap_doubt import TapDoubtTests
from test_tap_masks import TapMasksTests
from test_tap_rows import TapRowsTests
from test_tap_shards import TapShardsTests
from test_tap_sums import TapSumsTests
from test_variants import (
    ClassifierTests,
    CrossAttentionTests,
    LittleSaidTests,
    LoopedTests,
    NameTests,
)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True, help="the qera-daemon binary")
    parser.add_argument("names", nargs="*", help="parts of the names of suites; without any, all")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="TypedStorage")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        daemon = Daemon(arguments.daemon, work)
        suites = {name: lambda name=name: ListedArchitectureTests(daemon, name) for name in ARCHITECTURES}
        if os.environ.get("QERA_TEST_TIER") == "long":
            more = EVERY_ARCHITECTURE.keys() - ARCHITECTURES.keys()
            suites |= {name: lambda name=name: ArchitectureTests(daemon, name) for name in sorted(more)}
        suites["tap: rows"] = lambda: TapRowsTests(daemon)
        suites["tap: masks"] = lambda: TapMasksTests(daemon)
        suites["tap: doubt"] = lambda: TapDoubtTests(daemon)
        suites["tap: calls"] = lambda: TapCallsTests(daemon)
        suites["tap: shards"] = lambda: TapShardsTests(daemon)
        suites["tap: sums"] = lambda: TapSumsTests(daemon)
        suites["names"] = lambda: NameTests(daemon)
        suites["little said"] = lambda: LittleSaidTests(daemon)
        suites["looped"] = lambda: LoopedTests(daemon)
        suites["classifiers"] = lambda: ClassifierTests(daemon)
        suites["cross attention"] = lambda: CrossAttentionTests(daemon)
        listed = {f"listed {name}": lambda name=name: ListedTests(daemon, name) for name in LISTED}
        suites |= listed
        wanted = [name for name in suites if any(part in name for part in arguments.names or [""])]
        results = [run(name, suites[name]) for name in wanted]
    report("models", results)


if __name__ == "__main__":
    main()
