"""Runs suites: the test_* methods of a class, whose constructor is what they have in common."""

import traceback


def run(suite_name, make):
    """(passed, failed) of one suite; a suite that cannot be set up is one failure."""
    try:
        suite = make()
    except Exception:
        print(f"FAILED {suite_name}\n{traceback.format_exc()}", flush=True)
        return 0, 1
    passed = failed = 0
    for name in [name for name in dir(suite) if name.startswith("test_")]:
        try:
            getattr(suite, name)()
        except Exception:
            print(f"FAILED {suite_name}: {name}\n{traceback.format_exc()}", flush=True)
            failed += 1
        else:
            print(f"ok {suite_name}: {name}", flush=True)
            passed += 1
    return passed, failed


def report(stage, results):
    """Prints the stage's last line, and ends the program."""
    passed, failed = (sum(counts) for counts in zip(*results))
    print(f"{stage}: {passed} passed, {failed} failed")
    raise SystemExit(1 if failed else 0)
