"""docs/sketch.svg from the table of docs/sketch.md: what is left above the smallest error, against
memory.

`python3 benches/sketch_picture.py`, after the table was replaced by what `--bin sketch` prints."""

import dataclasses
import math
import pathlib

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 66, 682, 30, 346  # the plot's edges
KIB_LEAST, KIB_MOST = 3, 16000
ABOVE_LEAST, ABOVE_MOST = 0.01, 100  # percent; what is less is drawn at the least
INK, PALE = "#424a53", "#d8dee4"
COLOURS = {"q_proj_l0": "#0969da", "gate_proj_l15": "#1a7f37", "down_proj": "#9a6700"}


@dataclasses.dataclass
class Row:
    """A statistic of a layer, what it takes and what it leaves."""

    layer: str
    statistic: str
    kib: float
    above: float


def table():
    """The rows of the table."""
    for line in (DOCS / "sketch.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[3].endswith("%"):
            layer = cells[0].split(",")[0]
            yield Row(layer, cells[1], float(cells[2]), float(cells[3].rstrip(" %")))


def x_of(kib):
    """Where so much memory stands."""
    share = math.log(kib / KIB_LEAST) / math.log(KIB_MOST / KIB_LEAST)
    return LEFT + share * (RIGHT - LEFT)


def y_of(above):
    """Where so many percent stand."""
    share = math.log(max(above, ABOVE_LEAST) / ABOVE_LEAST) / math.log(ABOVE_MOST / ABOVE_LEAST)
    return BOTTOM - share * (BOTTOM - TOP)


def text(x, y, words, anchor="middle", colour=INK):
    """Words in the picture."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def axes():
    """Lines for percent, ticks for memory, and what both are."""
    for above in (0.01, 0.1, 1, 10, 100):
        y = y_of(above)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="{PALE}"/>'
        yield text(LEFT - 8, y + 4, f"{above:g} %", "end")
    for kib in (4, 16, 64, 256, 1024, 4096):
        x = x_of(kib)
        yield f'<line x1="{x:.1f}" y1="{BOTTOM}" x2="{x:.1f}" y2="{BOTTOM + 5}" stroke="{INK}"/>'
        yield text(x, BOTTOM + 19, f"{kib:,}")
    yield text((LEFT + RIGHT) / 2, HEIGHT - 10, "KiB of the statistic of one layer")
    yield text(LEFT - 8, TOP - 14, "error above the smallest of the rank", "start")


def points(layer, rows):
    """The statistics of a layer, those of the sketch joined."""
    colour, rows = COLOURS[layer], sorted(rows, key=lambda row: row.kib)
    sketched = [row for row in rows if row.statistic.startswith("sketch")]
    path = " ".join(f"{x_of(row.kib):.1f},{y_of(row.above):.1f}" for row in sketched)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}"/>'
    for row in rows:
        x, y = x_of(row.kib), y_of(row.above)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        label = row.statistic.removeprefix("sketch, ")
        yield text(x + 7, y - 7, label, "start", colour)


def main():
    """Writes the picture."""
    rows = list(table())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *axes(),
    ]
    for place, layer in enumerate(COLOURS):
        parts += points(layer, [row for row in rows if row.layer == layer])
        parts.append(text(RIGHT, TOP + 14 + 18 * place, layer, "end", COLOURS[layer]))
    (DOCS / "sketch.svg").write_text("\n".join([*parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
