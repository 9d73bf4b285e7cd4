"""The whole job of a real model's shards, from files to an adapter: the official steps and ours.

`run --job` beside this file starts it; README.md says what is compared. It runs both sides in turn,
each in a process of its own (`official_job.py`, `qera-daemon --once`), and prints the tables.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from official_job import RANK, STEPS, WIDTH, Shards, Weights, quantization_error
from peers import busy_seconds, count, own_seconds, print_versions, say
from safetensors import safe_open

MEASURED_BLOCKS = (0, 15)  # whose layers are looked at for how good the corrections are
# The daemon's kinds of work (docs/performance.md).
KINDS = ("read", "check", "hash", "accumulate", "choose", "quantize", "subspace", "measure")
KINDS += ("round", "write")


class Form(NamedTuple):
    """What is measured."""

    name: str
    options: tuple = ()  # of the daemon; the official side has none


OFFICIAL = Form("official")
OURS = (
    Form("ours, shrinkage 0", ("--shrinkage", "0")),
    Form("ours, auto", ("--shrinkage", "auto")),
)
FORMS = (OFFICIAL, *OURS)


class Ended(NamedTuple):
    """A process that did its work: what it took, and what it said on each output."""

    cost: dict
    printed: str
    said: str


def run_measured(command, threads, folder):
    """Runs one side to its end."""
    threads_of = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    command = [str(part) for part in command]
    others, begun = busy_seconds() - own_seconds(), time.perf_counter()
    with (folder / "printed").open("w+") as printed, (folder / "said").open("w+") as said:
        outputs = ((printed, 1), (said, 2))
        actions = [(os.POSIX_SPAWN_DUP2, file.fileno(), number) for file, number in outputs]
        process = os.posix_spawn(command[0], command, os.environ | threads_of, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
        wall = time.perf_counter() - begun
        ended = [file.seek(0) or file.read() for file, _ in outputs]
    if (code := os.waitstatus_to_exitcode(status)) != 0:
        sys.exit(f"{' '.join(command)}\nfailed with {code}:\n{ended[1][-3000:]}")
    cost = {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": wall,
        "resident_bytes": usage.ru_maxrss << 10,
        "others": max((busy_seconds() - own_seconds() - others) / wall, 0.0),
    }
    return Ended(cost, *ended)


class Job:
    """Shards, checkpoint, and where results go."""

    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.shards, self.weights = Shards(arguments.shards), Weights(arguments.checkpoint)

    def out(self, form):
        return self.folder / re.sub("[^a-z0-9]+", "-", form.name)

    def run(self, form, threads):
        """One run; returns its cost, with the CPU seconds by step or kind of work."""
        out = self.out(form)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        shards = self.arguments.shards
        given = ["--checkpoint", self.arguments.checkpoint, "--out", out, "--threads", threads]
        if form is OFFICIAL:
            script = Path(__file__).with_name("official_job.py")
            command = [sys.executable, script, "--shards", shards, *given]
            ended = run_measured(command, threads, self.folder)
            return ended.cost | {"by_kind_s": json.loads(ended.printed)}
        command = [self.arguments.daemon, "--once", "--watch", shards, *given, *form.options]
        command += ["--quantizer", f"mxint{WIDTH}", "--rank", RANK, "--log-format", "json"]
        ended = run_measured(command, threads, self.folder)
        events = [json.loads(line) for line in ended.said.splitlines()]
        spent = next(event for event in events if event["event"] == "core-time")
        return ended.cost | {"by_kind_s": spent["by_kind_s"]}

    def excess(self, form):
        """f over that of the official factors, less 1, on the layers that are looked at: the
        largest and the middle. R and E are made anew from the shards and the weights, in f64."""
        ratios = []
        for key, names in self.shards.layers.items():
            if any(f".layers.{block}." in key for block in MEASURED_BLOCKS):
                rows = (self.shards.rows(path, key).double() for path in self.shards.paths)
                r = sum(x.T @ x for x in rows)
                for name in names:
                    error = quantization_error(self.weights.layer(name)).double().T
                    ours, official = (self.objective(r, error, of, name) for of in (form, OFFICIAL))
                    ratios.append(ours / official - 1)
        middle = statistics.median(ratios)
        return {"largest": max(ratios), "median": middle, "layers": len(ratios)}

    def objective(self, r, error, form, name):
        """f = tr(R P P^T), P = E - A B, up to the number of rows."""
        left = error - self.product(form, name)
        return float((left * (r @ left)).sum())

    def product(self, form, name):
        """A B as it was written, f64."""
        if form is OFFICIAL:
            path, keys = "AB_dict.safetensors", (f"{name}.A", f"{name}.B")
        else:
            path = "current/adapter_model.safetensors"
            keys = (f"base_model.model.{name}.lora_{of}.weight" for of in "AB")
        with safe_open(self.out(form) / path, "pt") as file:
            a, b = (file.get_tensor(key).double() for key in keys)
        return a @ b if form is OFFICIAL else (b @ a).T


def median_of(runs):
    """Of each number, the median of the runs."""
    medians = {}
    for key, value in runs[0].items():
        values = [run[key] for run in runs]
        is_nested = isinstance(value, dict)
        medians[key] = median_of(values) if is_nested else statistics.median(values)
    return medians


def print_rows(rows, threads):
    head = f"{'CPU s':>8}{'ratio':>8}{'wall s':>8}{'ratio':>8}{'peak MB':>9}"
    print(f"\n{f'{threads} thread(s)':<20}{head}")
    official = rows[OFFICIAL.name]
    for name, row in rows.items():
        cells = f"{name:<20}"
        for clock in ("cpu_s", "wall_s"):
            cells += f"{row[clock]:>8.1f}{official[clock] / row[clock]:>7.2f}x"
        print(f"{cells}{row['resident_bytes'] / 1e6:>9.0f}")
    print("CPU seconds by step, and by kind of work")
    print_seconds({OFFICIAL.name: official}, STEPS)
    print_seconds({form.name: rows[form.name] for form in OURS}, KINDS)


def print_seconds(rows, kinds):
    print(f"{'':<20}" + "".join(f"{kind:>11}" for kind in (*kinds, "other")))
    for name, row in rows.items():
        seconds = [row["by_kind_s"][kind] for kind in kinds]
        seconds.append(row["cpu_s"] - sum(seconds))
        print(f"{name:<20}" + "".join(f"{second:>11.2f}" for second in seconds), flush=True)


def measure(job, threads, rounds):
    """The median of each form's rounds, by its name."""
    costs = {form.name: [] for form in FORMS}
    for turn in range(rounds):
        for form in FORMS:
            cost = job.run(form, threads)
            costs[form.name].append(cost)
            took = f"cpu {cost['cpu_s']:.1f} s, wall {cost['wall_s']:.1f} s"
            say(f"{form.name}, {threads} thread(s), round {turn + 1}: {took}")
    return {name: median_of(runs) for name, runs in costs.items()}


def compare(arguments):
    print_versions()
    by_threads = {}
    with tempfile.TemporaryDirectory(prefix="qera-job-") as folder:
        job = Job(arguments, Path(folder))
        layers = sum(len(names) for names in job.shards.layers.values())
        counts = f"{len(job.shards.paths)} shards, {len(job.shards.layers)} inputs, {layers} layers"
        print(f"{counts}; mxint{WIDTH}, rank {RANK}; medians of {arguments.rounds} round(s)")
        for threads in (1, 2):
            if arguments.threads in (None, threads):
                by_threads[threads] = measure(job, threads, arguments.rounds)
                print_rows(by_threads[threads], threads)
        excess = {form.name: job.excess(form) for form in OURS}
    print("\nf of ours as it was written over the official one's, less 1, on the rows solved from")
    for name, of in excess.items():
        figures = f"largest {of['largest']:+.1e}, median {of['median']:+.1e}"
        print(f"{name:<20}{figures} of {of['layers']} layers")
    others = max(row["others"] for rows in by_threads.values() for row in rows.values())
    if others > 0.2:
        print(f"other processes kept up to {others:.1f} CPUs busy: do not trust the wall seconds")
    if arguments.json:
        figures = {"by_threads": by_threads, "excess": excess}
        arguments.json.write(json.dumps(figures, indent=1) + "\n")


def parse():
    parser = argparse.ArgumentParser(
        prog="benches/peers/run --job", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--daemon", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--shards", required=True, help="recorded shards, which are only read")
    parser.add_argument(
        "--json", metavar="FILE", type=argparse.FileType("w"), help="write the figures there too"
    )
    parser.add_argument("--rounds", type=count, default=1, help="medians of so many")
    parser.add_argument("--threads", type=int, choices=(1, 2), help="only with one, or with two")
    return parser.parse_args()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder goes
    compare(parse())


if __name__ == "__main__":
    main()
