"""Accuracy and time against memory of each `--statistics`, by whole runs of the daemon.

    python3 benches/sketch_daemon.py DAEMON CHECKPOINT ACTIVATIONS LAYER...

corrects layers of one shape (names in full) at mxint3/32 and rank 32 without shrinkage, once with
each choice, and prints the last rows of the table in docs/sketch.md, for one layer: memory as
`plan` has it, rows that wait included; how far the error over all rows, as `verify --replay`
measures it, is above that with R, as a geometric mean over the layers; and the CPU seconds of
gathering, with quantizing W for E."""

import json
import math
import pathlib
import subprocess
import sys
import tempfile

CHOICES = ["full", "sketch=48", "sketch=64", "sketch=128", "sketch=256", "diagonal"]
GATHERING = ("accumulate", "quantize")
LABELS = {"full": "R", "diagonal": "diagonal"}


def said(daemon, words):
    """What a command prints, on both ends; it has to end well."""
    ended = subprocess.run([daemon, *words], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"{words}: {ended.returncode}\n{ended.stderr}")
    return ended


def options(statistics, checkpoint, activations, layers):
    """Those of a run."""
    of = ["--once", "--watch", activations, "--checkpoint", checkpoint, "--threads", "1"]
    of += ["--quantizer", "mxint3", "--rank", "32", "--shrinkage", "0", "--dtype", "f32"]
    of += ["--statistics", statistics, "--log-format", "json"]
    if statistics == "diagonal":
        of += ["--method", "approx"]
    for layer in layers:
        of += ["--include", layer]
    return of


def measured(statistics, daemon, checkpoint, activations, layers):
    """Memory in KiB, CPU seconds of gathering, and the error of each layer over all rows."""
    run = options(statistics, checkpoint, activations, layers)
    plan = json.loads(said(daemon, ["plan", *run]).stdout)
    kib = sum(site["statistics_bytes"] for site in plan["sites"]) / 1024
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out"
        log = said(daemon, [*run, "--out", out, "--emit-base"]).stderr
        events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        spent = next(event for event in events if event["event"] == "core-time")
        seconds = sum(spent["by_kind_s"].get(kind, 0) for kind in GATHERING)
        replay = ["verify", "--adapter", f"{out}/current", "--base", f"{out}/base", "--json"]
        replay += ["--replay", activations, "--checkpoint", checkpoint]
        layers = json.loads(said(daemon, replay).stdout)["replay"][0]["layers"]
    return kib, seconds, {layer["name"]: layer["error_with"] for layer in layers}


def main():
    """Prints a row for each choice."""
    daemon, checkpoint, activations, *layers = sys.argv[1:]
    daemon = str(pathlib.Path(daemon).resolve())
    best = None
    for statistics in CHOICES:
        kib, seconds, errors = measured(statistics, daemon, checkpoint, activations, layers)
        best = best or errors
        logs = [math.log(errors[name] / best[name]) for name in best]
        above = 100 * math.expm1(sum(logs) / len(logs))
        label = LABELS.get(statistics) or statistics.replace("=", ", l = ")
        of_layer = f"{kib / len(layers):.0f} | {above:.2f} % | | {seconds / len(layers):.1f}"
        print(f"| {layers[0].rsplit('.', 1)[-1]}, daemon | {label} | {of_layer} |", flush=True)


if __name__ == "__main__":
    main()
