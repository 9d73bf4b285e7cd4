"""Checks that what benches/cuda/run found is whole, and that both sides agree.

    check_json.py FILE

Of one size. What torch finds is checked where a CUDA build of it is there.
"""

import json
import sys

LAYERS = 28  # of the fixture


def main():
    with open(sys.argv[1]) as file:
        found = json.load(file)
    for part in ["accuracy", "times", "fixture-cuda", "fixture-cpu"]:
        assert found[part]["status"] == 0, (part, found[part])
    parts = [line["part"] for line in found["times"]["found"]]
    assert parts == ["machine"] + ["accumulate"] * 3 + ["multiply"] * 2 + ["solve"], parts
    for line in found["times"]["found"]:
        for key, value in line.items():
            most = {"entry_difference": 1e-5, "device_error": 1e-5, "trace_difference": 1e-9,
                    "captured_difference": 1e-8, "subspace_difference": 1e-3}.get(key)
            assert most is None or 0 <= value < most, (key, value, line)
    assert found["torch"]["status"] == 0 or found["torch"]["said"], found["torch"]
    fixture = found["fixture"]
    assert fixture["layers"] == LAYERS and fixture["largest_difference_of_f"] < 1e-4, fixture
    print(f"the script for a device: {len(parts)} lines, f of {LAYERS} layers within "
          f"{fixture['largest_difference_of_f']:.1e}")


main()
