"""The `gguf` stage: runs every test_* method of the suites and counts. See run.sh."""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE.parent / "peft"), str(ROOT / "taps")]

from suites import report, run
from test_tap import TapTests

# Scripts of their own, each of which ends with 0 when all is well.
SCRIPTS = ("blocks/test_blocks.py", "headers/test_headers.py", "names/test_names.py", "names/test_rows.py")


def run_script(name, daemon):
    path = HERE / name
    if not path.exists():
        print(f"absent {name}")
        return 0, 0
    done = subprocess.run([sys.executable, path], env=os.environ | {"QERA_DAEMON": daemon})
    print(f"{'ok' if done.returncode == 0 else 'FAILED'} {name}", flush=True)
    return (1, 0) if done.returncode == 0 else (0, 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True, help="the qera-daemon binary")
    parser.add_argument("suites", nargs="*", help="only those whose names contain one of these")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        suites = {"tap": lambda: run("tap", lambda: TapTests(work))}
        suites |= {name: lambda name=name: run_script(name, arguments.daemon) for name in SCRIPTS}
        wanted = [name for name in suites if not arguments.suites or any(part in name for part in arguments.suites)]
        results = [suites[name]() for name in wanted]
    report("gguf", results)


if __name__ == "__main__":
    main()
