"""What sketching costs beside d = x E, in instructions of AVX2 and in CPU seconds.

    python3 benches/sketch_cost.py target/release/sketch_cost

prints the table of docs/sketch.md: for layers of M inputs and N outputs and sketches of L - 1 rows,
how much a block of 256 rows takes beyond its output errors, as a share of these. Instructions are
counted by callgrind, which is the same on any CPU with AVX2; seconds are those of `--kernel auto`'s
form on this one, the least of seven runs each. Needs valgrind."""

import os
import re
import subprocess
import sys

SHAPES = [
    ("fixture, down_proj", 320, 128, 32),
    ("SmolLM2-135M, down_proj", 1536, 576, 128),
    ("1B, down_proj", 8192, 2048, 128),
    ("7B, o_proj", 4096, 4096, 128),
    ("7B, down_proj", 11008, 4096, 128),
    ("8B, down_proj", 14336, 4096, 128),
]
FORM = "auto"


def instructions(words):
    """How many callgrind counts."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += ["--toggle-collect=sketch_cost::counted*", *words, "1"]
    path = {"PATH": os.environ["PATH"]}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=path).stderr
    return int(re.search(r"Collected : (\d+)", said)[1])


def seconds(words):
    """CPU seconds, the least of a few."""
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def beyond(program, form, shape, measure):
    """What a fold takes beyond the output errors, as a share of these."""
    errors, fold = (
        measure([program, form, what, *map(str, shape)]) for what in ("errors", "fold")
    )
    return 100 * (fold / errors - 1)


def main():
    """Prints a row for each shape."""
    program = sys.argv[1]
    print("| layer | inputs, outputs, l | beyond d = xE, instructions | CPU time |")
    print("|---|---|---|---|")
    for name, *shape in SHAPES:
        counted = beyond(program, "avx2", shape, instructions)
        timed = beyond(program, FORM, shape, seconds)
        sizes = ", ".join(map(str, shape))
        print(f"| {name} | {sizes} | {counted:.0f} % | {timed:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
