"""Writes the points of the IQ grids, as Python's `gguf` has them, into the daemon's sources.

    python3 write_grids.py            # writes the files
"""

import pathlib

import gguf.quants

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOLDER = ROOT / "qera-daemon" / "src" / "formats" / "gguf" / "blocks"
PER_LINE = 12  # as many as rustfmt leaves on one

# For each file: what it holds, bits of a coordinate, coordinates of a point, the grids' names and
# gguf's classes.
FILES = {
    "iq1_grid.rs": ("the IQ1 grid", 2, 8, {"IQ1": "IQ1_S"}),
    "iq2_grids.rs": ("the IQ2 grids", 2, 8, {"IQ2_XXS": "IQ2_XXS", "IQ2_XS": "IQ2_XS", "IQ2_S": "IQ2_S"}),
    "iq3_grids.rs": ("the IQ3 grids", 4, 4, {"IQ3_XXS": "IQ3_XXS", "IQ3_S": "IQ3_S"}),
}


def coordinates(values):
    *most, last = (str(value) for value in values)
    return f"{', '.join(most)} or {last}"


def table(name, grid, bits, size):
    assert grid.grid_shape[1] == size
    packed = bytes.fromhex(grid.grid_hex.decode())
    points = [int.from_bytes(packed[at : at + 2], "little") for at in range(0, len(packed), 2)]
    assert len(points) == grid.grid_shape[0] and size * bits == 16
    lines = [
        f"/// Coordinates: {coordinates(grid.grid_map)}.",
        f"pub(super) const {name}: [u16; {len(points)}] = [",
    ]
    for start in range(0, len(points), PER_LINE):
        lines.append("    " + " ".join(f"{point:#06x}," for point in points[start : start + PER_LINE]))
    return lines + ["];"]


def text(what, bits, size, grids):
    lines = [
        f"//! The points of {what} of ggml, written by `tests/gguf/blocks/write_grids.py` from Python's",
        "//! `gguf` 0.19.",
        "//!",
        f"//! A point is a u16 of {size} coordinates, the first in the lowest {bits} bits; each says which of the",
        "//! grid's few coordinates it is.",
    ]
    for name, of in grids.items():
        lines += ["", *table(name, getattr(gguf.quants, of), bits, size)]
    return "\n".join(lines) + "\n"


def files():
    """{path: text} of every file of grids."""
    return {FOLDER / name: text(*of) for name, of in FILES.items()}


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content, encoding="utf-8")
