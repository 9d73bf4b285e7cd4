"""docs/live.svg: the error on unseen rows against the rows seen, one marker for each generation of
a real live run."""

import dataclasses
import math
import statistics

import torch
from daemon import generation_manifest, generations
from fixture import MODEL, ROOT, calibration_tokens, load_model
from hugging_face import Tap
from unseen import UnseenRows

PICTURE = ROOT / "docs/live.svg"
BITS, RANK, TOLERANCE = 3, 8, 0.01
BATCH = 4  # sequences in a shard
UNSEEN = 128  # sequences that are never in the folder
BEHIND = 4  # shards that the daemon may be behind the model
WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 66, 682, 44, 346  # the plot's edges
TICKS = [digit * 10**power for power in range(1, 7) for digit in (1, 2, 5)]
INK, PALE, BLUE, GREEN = "#424a53", "#d8dee4", "#0969da", "#1a7f37"


@dataclasses.dataclass
class Point:
    """A generation: of its layers the median of their rows, how many were solved and how many had
    converged."""

    number: int
    rows: float
    error: float
    layers: int
    solved: int
    converged: int


def stream():
    """The calibration sequences in a fixed random order: those that are fed, and those that only
    score.

    The file has the beginnings of all documents first and later windows of the long ones last: in
    that order the text changes as rows come, and no rows of it are like all others."""
    tokens = calibration_tokens()
    tokens = tokens[torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))]
    return tokens[:-UNSEEN], tokens[-UNSEEN:]


def feed(live, folder):
    """Runs the model with the tap on the stream, at the daemon's pace; returns the shards."""
    model, batches = load_model(), stream()[0].split(BATCH)
    with torch.no_grad(), Tap(model, folder, dtype="bf16", strict=True):
        for fed, batch in enumerate(batches):
            live.wait("at pace", lambda fed=fed: live.said("folded ") >= fed - BEHIND, seconds=60)
            model(input_ids=batch)
    return len(batches)


def record(daemon):
    """The run; returns its output folder."""
    folder = daemon.work / "picture"
    (folder / "activations").mkdir(parents=True)
    command = [daemon.binary, "--watch", "activations", "--checkpoint", MODEL, "--out", "live-out"]
    command += ["--quantizer", f"mxint{BITS}", "--rank", str(RANK), "--tolerance", str(TOLERANCE)]
    command += ["--keep-generations", "1000", "--idle-publish", "3", "--consume", "delete"]
    with daemon.live(command, folder) as live:
        live.wait_until_watching()
        shards = feed(live, folder / "activations")
        work = live.wait_until_idle(shards)["work"]
        exit_code = live.stop()
        assert exit_code == 0, f"exit code {exit_code}"
    seconds = ", ".join(f"{name} {spent:.2f} s" for name, spent in work.items())
    print(f"{shards} shards; {seconds}; scoring is {work['score'] / work['accumulate']:.2%} of accumulating")
    return live.out


def score(out):
    """A point for each generation."""
    unseen, points = UnseenRows(stream()[1], BITS), []
    for generation in generations(out):
        layers = generation_manifest(generation)["layers"]
        points.append(
            Point(
                number=int(generation.name),
                rows=statistics.median(layer["rows"] for layer in layers),
                error=unseen.error(generation),
                layers=len(layers),
                solved=sum(layer["status"] == "solved" for layer in layers),
                converged=sum(layer["converged"] for layer in layers),
            )
        )
        print(points[-1])
    return points


class Plot:
    """The lines of an SVG, and where rows (on a logarithmic scale) and errors are in it."""

    def __init__(self, rows, errors):
        self.first, self.span = math.log(0.8 * min(rows)), math.log(max(rows) / min(rows) / 0.8**2)
        spread = max(errors) - min(errors)
        self.step = next(step for step in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1) if spread <= 6 * step)
        self.low, self.high = math.floor(min(errors) / self.step), math.ceil(max(errors) / self.step)
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
            ' font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        ]

    def x(self, rows):
        return LEFT + (RIGHT - LEFT) * (math.log(rows) - self.first) / self.span

    def y(self, error):
        return BOTTOM - (BOTTOM - TOP) * (error / self.step - self.low) / (self.high - self.low)

    def text(self, x, y, words, anchor="middle", color=INK, more=""):
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}'
        halo = 'stroke="white" stroke-width="3" paint-order="stroke"'  # so that no line crosses the letters
        self.parts.append(f'<text {place} fill="{color}" {halo}>{words}</text>')

    def line(self, x1, y1, x2, y2, color, more=""):
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.parts.append(f'<line {ends} stroke="{color}"{more}/>')

    def axes(self, note):
        for tick in range(self.low, self.high + 1):
            y = self.y(tick * self.step)
            self.line(LEFT, y, RIGHT, y, PALE)
            self.text(LEFT - 8, y + 4, f"{tick * self.step:.3f}", "end")
        for tick in TICKS:
            if LEFT <= self.x(tick) <= RIGHT:
                self.line(self.x(tick), BOTTOM, self.x(tick), BOTTOM + 5, INK)
                self.text(self.x(tick), BOTTOM + 19, f"{tick:,}")
        self.line(LEFT, BOTTOM, RIGHT, BOTTOM, INK)
        self.line(LEFT, TOP, LEFT, BOTTOM, INK)
        self.text((LEFT + RIGHT) / 2, BOTTOM + 40, f"rows (median over the layers); {note}")
        middle = (TOP + BOTTOM) / 2
        turned = f' transform="rotate(-90 16 {middle})"'
        self.text(16, middle, "error on unseen rows, relative to no correction", more=turned)

    def curve(self, points):
        last = points[-1]
        self.line(LEFT, self.y(last.error), RIGHT, self.y(last.error), BLUE, ' stroke-dasharray="5 4" opacity="0.7"')
        self.text(RIGHT + 6, self.y(last.error) + 4, f"last: {last.error:.4f}", "start", BLUE)
        path = " ".join(f"{self.x(point.rows):.1f},{self.y(point.error):.1f}" for point in points)
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="1.5"/>')
        before = -math.inf
        for point in points:
            x, y = self.x(point.rows), self.y(point.error)
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{BLUE}"/>')
            self.text(x, y + 18 if x - before < 14 else y - 9, point.number)  # below where the one before is near
            before = x

    def mark(self, point, height, words):
        """A vertical line at a generation."""
        x = self.x(point.rows)
        self.line(x, height + 5, x, BOTTOM, GREEN, ' stroke-dasharray="2 3"')
        self.text(x, height, words, "end" if x > (LEFT + RIGHT) / 2 else "start", GREEN)


def svg(points):
    """Generations before the first solve of every layer are left out: their error is mostly that of
    no correction."""
    drawn = [point for point in points if point.solved == point.layers]
    plot = Plot([point.rows for point in drawn], [point.error for point in drawn])
    plot.axes(f"numbers: generations, from {drawn[0].number} on, the first with every layer solved")
    half, every = points[0].layers // 2, points[0].layers
    for height, enough in ((32, half), (16, every)):  # the later line higher, so that no label crosses it
        reached = [point for point in drawn if point.converged >= enough]
        if reached:
            plot.mark(reached[0], height, f"{enough} of {every} layers converged (tolerance {TOLERANCE})")
    plot.curve(drawn)
    return "\n".join([*plot.parts, "</svg>", ""])


def write_picture(daemon):
    PICTURE.write_text(svg(score(record(daemon))), encoding="utf-8")
