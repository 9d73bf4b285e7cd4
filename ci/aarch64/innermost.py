"""Instructions of the innermost loops of the kernels for 64-bit ARM, read from the program.

    innermost.py PROGRAM

A loop is what lies between a backward branch and its target; that of a function is the one with the
most multiply-adds (`fmla`), four f32 or two f64 each. Fails where 32 multiply-adds of a whole tile
take more than 11 instructions (in f64, where they take 16 `fmla`, more than 27), or where a
function is not found.
"""

import re
import subprocess
import sys

FUNCTIONS = {"packed_tile": (4, 11.0), "columns_tile": (4, 11.0), "columns_f64_tile": (2, 27.0)}
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+[0-9a-f]{8}\s+(\S+)\s*(.*)$")


def loops(lines):
    """The instructions of each innermost loop of a function."""
    code = [found.groups() for found in map(INSTRUCTION.match, lines) if found]
    at = {int(address, 16): index for index, (address, _, _) in enumerate(code)}
    for index, (address, name, operands) in enumerate(code):
        target = re.search(r"\b([0-9a-f]+) <", operands)
        if (name.startswith("b.") or name in ("b", "cbz", "cbnz", "tbz", "tbnz")) and target:
            first = at.get(int(target.group(1), 16))
            if first is not None and first <= index:
                yield [name for _, name, _ in code[first : index + 1]]


def main():
    listing = subprocess.run(["aarch64-linux-gnu-objdump", "-d", "-C", sys.argv[1]],
                             capture_output=True, text=True, check=True).stdout
    found = {}
    for block in listing.split("\n\n"):
        head, *lines = block.splitlines() or [""]
        name = re.search(r"micro::neon::(\w+)", head)
        if name and name.group(1) in FUNCTIONS:
            found.setdefault(name.group(1), []).append(lines)
    bad = False
    for name, (width, most) in FUNCTIONS.items():
        if name not in found:
            print(f"innermost: {name} is not in the program")
            bad = True
        # A function is there for whole tiles and for half ones, which use what they load half as
        # often.
        candidates = [loop for lines in found.get(name, []) for loop in loops(lines)]
        loop = max(candidates, key=lambda loop: loop.count("fmla"), default=[])
        products = loop.count("fmla") * width
        rate = 32 * len(loop) / products if products else float("inf")
        print(f"innermost: {name}: {len(loop)} instructions for {products} multiply-adds, "
              f"{rate:.1f} for 32 (at most {most:.0f})")
        bad |= rate > most
    sys.exit(bad)


if __name__ == "__main__":
    main()
