"""docs/live.svg: the error on unseen rows against the rows seen, one marker for each generation of a real live run."""

import dataclasses
import math
import statistics

import torch
from daemon import generation_manifest, generations
from fixture import MODEL, ROOT, calibration_tokens, evaluation_tokens, load_model
from readme import define_hook
from unseen import UnseenRows

PICTURE = ROOT / "docs/live.svg"
BITS, RANK, TOLERANCE = 3, 8, 0.01
BATCH = 4  # sequences in a shard
BEHIND = 4  # shards that the daemon may be behind the model
WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 736, 40, 344  # the plot's edges
GRAY, INK, BLUE, GREEN = "#d0d7de", "#424a53", "#0969da", "#1a7f37"


@dataclasses.dataclass
class Point:
    """A generation: its number, the median over the layers of their rows, its error, its converged layers."""

    number: int
    rows: float
    error: float
    converged: int


def feed(live, readme, folder):
    """The fixture model with the README's hook on all calibration sequences, at the daemon's pace; says how many shards."""
    model, batches = load_model(), calibration_tokens().split(BATCH)
    define_hook(readme)(model, folder)
    with torch.no_grad():
        for fed, batch in enumerate(batches):
            live.wait("at pace", lambda fed=fed: live.said("folded ") >= fed - BEHIND, seconds=60)
            model(input_ids=batch)
    return len(batches)


def record(daemon, readme):
    """The run; returns its points."""
    folder = daemon.work / "picture"
    (folder / "activations").mkdir(parents=True)
    command = [daemon.binary, "--watch", "activations", "--checkpoint", MODEL, "--out", "live-out"]
    command += ["--quantizer", f"mxint{BITS}", "--rank", str(RANK), "--tolerance", str(TOLERANCE)]
    command += ["--keep-generations", "1000", "--idle-publish", "3", "--consume", "delete"]
    with daemon.live(command, folder) as live:
        live.wait_until_watching()
        shards = feed(live, readme, folder / "activations")
        work = live.wait_until_idle(shards)["work"]
        exit_code = live.stop()
        assert exit_code == 0, f"exit code {exit_code}"
    seconds = ", ".join(f"{name} {spent:.2f} s" for name, spent in work.items())
    print(f"{shards} shards; {seconds}; scoring is {work['score'] / work['accumulate']:.2%} of accumulating")
    unseen, points = UnseenRows(evaluation_tokens(), BITS), []
    for generation in generations(live.out):
        layers = generation_manifest(generation)["layers"]
        rows = statistics.median(layer["rows"] for layer in layers)
        converged = sum(layer["converged"] for layer in layers)
        points.append(Point(int(generation.name), rows, unseen.error(generation), converged))
        print(points[-1])
    return points, len(layers)


def write_picture(daemon, readme):
    import pickle
    points = record(daemon, readme)
    pickle.dump(points, open("/tmp/points.pkl", "wb"))
