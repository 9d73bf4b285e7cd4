"""The `vllm_tap` stage: runs every test_* method of the suites and counts. See ../run.sh."""

import argparse
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[1:1] = [str(ROOT / part) for part in ("taps/vllm", "tests/peft", "tests/models")]

import torch
from daemon import Daemon
from served import Served
from suites import report, run
from test_bounds import BoundsTests
from test_choice import ChoiceTests
from test_daemon import DaemonTests
from test_direct import DirectTests
from test_faults import FaultTests
from test_folder import FolderTests
from test_modules import ModulesTests
from test_plugin import PluginTests
from test_steps import FirstRunnerTests, SecondRunnerTests
from test_swap import SwapTests


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True, help="the qera-daemon binary")
    parser.add_argument("names", nargs="*", help="parts of the names of suites; without any, all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        suites = {
            "modules": ModulesTests,
            "first runner": lambda: FirstRunnerTests(work / "first"),
            "second runner": lambda: SecondRunnerTests(work / "second"),
            "choice": lambda: ChoiceTests(work / "choice"),
            "bounds": lambda: BoundsTests(work / "bounds"),
            "direct": lambda: DirectTests(work / "direct"),
            "folder": lambda: FolderTests(work / "folder"),
            "faults": lambda: FaultTests(work / "faults"),
            "plugin": lambda: PluginTests(work / "plugin"),
            "swap": SwapTests,
            "daemon": lambda: DaemonTests(Daemon(arguments.daemon, work), work / "daemon"),
        }
        wanted = [name for name in suites if any(part in name for part in arguments.names or [""])]
        results = [run(name, suites[name]) for name in wanted]
        for served in Served.all:
            served.close()
    report("vllm_tap", results)


if __name__ == "__main__":
    main()
