"""The official implementation's steps against ours. `run` beside this file starts it; README.md
says what is compared.

Three commands. `compare` makes the data, measures both sides in turn and prints the table.
`accumulate` and `solve` are one measurement of the official side in a process of its own, with the
same command line as our binary `peer`.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy
import scipy.linalg
import torch
from safetensors.torch import load_file, save_file

RANK = 32
BATCH_ROWS = 2048
SEED = 20261122
SECOND_THREAD = " 2t"


class Work(NamedTuple):
    """One thing that both sides do; measured with one thread and, as a row of its own, with two."""

    name: str
    in_features: int
    out_features: int = 0  # 0: accumulate
    dtype: torch.dtype | None = None  # of the rows
    warm: bool = False

    @property
    def is_solve(self):
        return self.out_features > 0


WORKS = (
    Work("accumulate 4096 bf16", 4096, dtype=torch.bfloat16),
    Work("accumulate 4096 f32", 4096, dtype=torch.float32),
    Work("solve 4096 cold", 4096, 4096),
    Work("solve 4096 warm", 4096, 4096, warm=True),
    Work("solve 576x1536 cold", 576, 1536),
    Work("solve 1536x576 cold", 1536, 576),
    Work("solve 2048 cold", 2048, 2048),
)
QUICK = (Work("accumulate 1024 bf16", 1024, dtype=torch.bfloat16), *(work for work in WORKS if "x" in work.name))


# The official side: one measurement in this process.


def timed(work):
    """Runs `work`; returns its result and what it cost this process."""
    cpu, wall = time.process_time(), time.perf_counter()  # the first is CLOCK_PROCESS_CPUTIME_ID
    result = work()
    return result, {"cpu_s": time.process_time() - cpu, "elapsed_s": time.perf_counter() - wall}


def official_fold(r, x):
    """One call of the official hook on its f64 sum: the product in f32, cast and added in f64."""
    x = x.to(torch.float32)
    r += torch.einsum("bi,bj->ij", x, x).to(torch.float64)


def official_solve(r, error_t, rank):
    """From f64 R (m x m) and the transposed error (n x m, f32) to A (m x k) and B (k x n), as the
    official code goes: the square root in f64, all else in f32, a full SVD, and a linear system for
    the inverse of the root."""
    root = scipy.linalg.sqrtm(r.numpy())
    if numpy.iscomplexobj(root):
        sys.exit("the official square root is complex: R is too close to singular for it")
    scale = torch.from_numpy(root).to(torch.float32)
    u, sigma, v_t = torch.linalg.svd(scale @ error_t.T)  # full_matrices=True is its default, and what it uses
    return torch.linalg.solve(scale, u[:, :rank]), torch.diag(sigma[:rank]) @ v_t[:rank]


def accumulate(arguments):
    torch.set_num_threads(arguments.threads)
    rows = load_file(arguments.rows)["rows"]
    r = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    official_fold(r, rows)  # warm-up
    return timed(lambda: official_fold(r, rows))[1]


def solve(arguments):
    torch.set_num_threads(arguments.threads)
    problem = load_file(arguments.problem)
    warm_up = torch.eye(64, dtype=torch.float64)
    official_solve(warm_up, warm_up.float(), 1)
    (a, b), cost = timed(lambda: official_solve(problem["r"], problem["error_t"], arguments.rank))
    save_file({"a": a.double().contiguous(), "b": b.double().contiguous()}, arguments.out)
    return cost


# The data: synthetic, from a fixed seed.


class Site:
    """A layer's input: rows with a power-law spectrum in a random basis, uneven tokens and
    channels, and six channels that are 30 to 300 times larger than the others."""

    def __init__(self, in_features):
        self.random = numpy.random.default_rng([SEED, in_features])
        basis = numpy.linalg.qr(self.random.standard_normal((in_features, in_features), dtype=numpy.float32))[0]
        spectrum = numpy.arange(1, in_features + 1) ** -1.2
        channels = self.random.lognormal(sigma=0.5, size=in_features)
        channels[self.random.choice(in_features, 6, replace=False)] *= numpy.geomspace(30, 300, 6)
        self.mixing = (numpy.sqrt(spectrum)[:, None] * basis * channels).astype(numpy.float32)

    def batch(self):
        """Returns the next rows, f32."""
        tokens = self.random.lognormal(sigma=0.5, size=(BATCH_ROWS, 1)).astype(numpy.float32)
        normal = self.random.standard_normal((BATCH_ROWS, len(self.mixing)), dtype=numpy.float32)
        return torch.from_numpy(tokens * (normal @ self.mixing))

    def autocorrelation(self, rows):
        """Returns the mean of x^T x in f64 over about so many rows, each rounded to bf16."""
        batches = -(-rows // BATCH_ROWS)
        total = numpy.zeros(self.mixing.shape)
        for _ in range(batches):
            x = self.batch().bfloat16().float().numpy()
            total += x.T @ x
        return total / (batches * BATCH_ROWS)


def make_weight(in_features, out_features):
    """Returns a weight as checkpoints store it, [out, in]: noise and 16 strong directions, rows and
    columns uneven."""
    random = numpy.random.default_rng([SEED, in_features, out_features])
    strong = random.standard_normal((out_features, 16)) @ random.standard_normal((16, in_features)) / 4
    weight = 0.02 * (random.standard_normal((out_features, in_features)) + strong)
    weight *= random.lognormal(sigma=0.3, size=(out_features, 1)) * random.lognormal(sigma=0.3, size=in_features)
    return weight.astype(numpy.float32)


def mxint(weight, width, block_size=32):
    """Returns the weight after quantization to MXINT of so many bits, blocks along in_features (a
    multiple of the block's size)."""
    blocks = weight.reshape(len(weight), -1, block_size)
    magnitude = numpy.abs(blocks)
    magnitude[magnitude < 2.0**-126] = 0
    exponent_field = (magnitude.view(numpy.uint32) >> 23).max(axis=2, keepdims=True)  # biased
    step = numpy.maximum(exponent_field.astype(numpy.int32), 1) - 127 - (width - 2)  # its power of two
    code = numpy.minimum(numpy.rint(numpy.ldexp(magnitude, -step)), 2 ** (width - 1) - 1)  # half to even
    value = numpy.ldexp(code.astype(numpy.float32), step)
    return numpy.where(blocks < 0, -value, value).reshape(weight.shape)


class Data:
    """Files that both sides read, each made when it is first needed."""

    def __init__(self, folder):
        self.folder = folder

    def rows(self, in_features, dtype):
        path = self.folder / f"rows-{in_features}-{dtype}.safetensors"
        if not path.exists():
            save_file({"rows": Site(in_features).batch().to(dtype)}, path)
        return path

    def problem(self, in_features, out_features, later):
        """R from four rows a channel, or `later`, when a twentieth of it has been replaced by that
        of new rows."""
        names = [f"problem-{in_features}x{out_features}-{when}.safetensors" for when in ("earlier", "later")]
        earlier_path, later_path = (self.folder / name for name in names)
        if not earlier_path.exists():
            say(f"making the problem {in_features} x {out_features}")
            site = Site(in_features)
            earlier = site.autocorrelation(4 * in_features)
            weight = make_weight(in_features, out_features)
            error_t = torch.from_numpy(weight - mxint(weight, 4))
            save_file({"r": torch.from_numpy(earlier), "error_t": error_t}, earlier_path)
            changed = 0.95 * earlier + 0.05 * site.autocorrelation(2 * in_features)
            save_file({"r": torch.from_numpy(changed), "error_t": error_t}, later_path)
        return later_path if later else earlier_path


class Objective:
    """f(A B) = tr(R P P^T), P = E - A B, of one problem, and its minimum over rank k; all in
    f64."""

    def __init__(self, path):
        problem = load_file(path)
        self.r = problem["r"].numpy()
        self.error = problem["error_t"].numpy().astype(numpy.float64).T
        g = self.error.T @ self.r @ self.error
        n = len(g)
        largest = scipy.linalg.eigh(g, eigvals_only=True, subset_by_index=[n - RANK, n - 1])
        self.least = numpy.trace(g) - largest.sum()

    def excess(self, path):
        """Returns f of the factors in a file, relative to the minimum, less 1."""
        factors = load_file(path)
        a, b = factors["a"], factors["b"]
        shapes = ((len(self.error), RANK), (RANK, self.error.shape[1]))
        if (a.shape, b.shape) != shapes or {a.dtype, b.dtype} != {torch.float64}:
            sys.exit(f"wrong factors: {a.dtype} {tuple(a.shape)} and {b.dtype} {tuple(b.shape)}, not {shapes}")
        left = self.error - a.numpy() @ b.numpy()
        return float(numpy.sum(left * (self.r @ left)) / self.least - 1)


# The comparison.


def say(text):
    print(f"  {text}", file=sys.stderr, flush=True)


def busy_seconds():
    """CPU seconds that the whole machine has spent, so far, on anything."""
    first_line = Path("/proc/stat").read_text().split("\n", 1)[0]
    user, nice, system, _idle, _waiting, *interrupts = map(int, first_line.split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    """CPU seconds of this process and of those that it has started and that have ended."""
    return sum(os.times()[:4])


def measure(command, threads):
    """Runs one measurement of either side in a process of its own. Returns what it printed, and how
    many CPUs other processes kept busy meanwhile."""
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    command = [str(part) for part in (*command, "--threads", threads)]
    start, others = time.perf_counter(), busy_seconds() - own_seconds()
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except OSError as fault:
        sys.exit(f"{command[0]} does not start: {fault}")
    others = (busy_seconds() - own_seconds() - others) / (time.perf_counter() - start)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nfailed with {done.returncode}:\n{done.stderr.strip()}")
    try:
        result = json.loads(done.stdout)
        cost = {clock: float(result[clock]) for clock in ("cpu_s", "elapsed_s")}
        return cost | {"kernel": result.get("kernel"), "others": max(others, 0.0)}
    except (ValueError, KeyError, TypeError) as fault:
        sys.exit(f"{' '.join(command)}\nprinted {done.stdout!r}, which is no measurement: {fault!r}")


def measure_row(work, threads, rounds, data, peer, objectives):
    """Both sides in turn, `rounds` times; returns the row of the table."""
    official, ours = [sys.executable, __file__], [peer]
    objective = out = None
    if work.is_solve:
        problem = data.problem(work.in_features, work.out_features, later=work.warm)
        if problem not in objectives:
            objectives.clear()  # one at a time: it holds several matrices
            objectives[problem] = Objective(problem)
        objective, out = objectives[problem], data.folder / "factors.safetensors"
        same = ["solve", "--problem", problem, "--rank", RANK, "--out", out]
        official, ours = official + same, ours + same
        if work.warm:
            ours += ["--warm-from", data.problem(work.in_features, work.out_features, later=False)]
    else:
        same = ["accumulate", "--rows", data.rows(work.in_features, work.dtype)]
        official, ours = official + same, ours + same

    name = work.name + (SECOND_THREAD if threads == 2 else "")
    costs, excesses = {"official": [], "ours": []}, {"official": [], "ours": []}
    for turn in range(rounds):
        for side, command in (("official", official), ("ours", ours)):
            if out:
                out.unlink(missing_ok=True)
            cost = measure(command, threads)
            costs[side].append(cost)
            if objective:
                excesses[side].append(objective.excess(out))
            say(f"{name}, round {turn + 1}, {side}: cpu {cost['cpu_s']:.4f} s, elapsed {cost['elapsed_s']:.4f} s")
    return summarize(name, threads, costs, excesses)


def summarize(name, threads, costs, excesses):
    """Returns the row: medians, their ratio, and of the excess the worst."""
    row = {"name": name, "rounds": len(costs["ours"])}
    for side, measured in costs.items():
        for clock in ("cpu_s", "elapsed_s"):
            row[f"{side}_{clock}"] = statistics.median(cost[clock] for cost in measured)
    clock = "cpu_s" if threads == 1 else "elapsed_s"
    row |= {f"{side}_s": row[f"{side}_{clock}"] for side in costs}
    row["ratio"] = row["official_s"] / row["ours_s"]
    turns = [a[clock] / b[clock] for a, b in zip(costs["official"], costs["ours"])]
    row |= {"ratio_lowest": min(turns), "ratio_highest": max(turns)}
    for key, side in (("excess", "ours"), ("official_excess", "official")):
        row[key] = max(excesses[side], default=None)
    row["kernel"] = costs["ours"][-1]["kernel"]
    row["others"] = max(cost["others"] for measured in costs.values() for cost in measured)
    return row


def print_header(rounds):
    print(f"\nmedians of {rounds} round(s), official and ours in turn; the excess is the worst of them")
    print('one thread: CPU seconds of the process; rows ending in "2t": two threads, elapsed seconds')
    columns = f"{'official s':>11} {'ours s':>9} {'ratio':>8} {'lowest':>8} {'highest':>8}"
    print(f"{'work':<24}{columns} {'excess':>9} {'official':>9}", flush=True)


def print_row(row):
    cells = f"{row['official_s']:>11.4f} {row['ours_s']:>9.4f}"
    cells += "".join(f" {row[key]:>7.1f}x" for key in ("ratio", "ratio_lowest", "ratio_highest"))
    excesses = (row["excess"], row["official_excess"])
    cells += "".join(f" {'-' if excess is None else format(excess, '.1e'):>9}" for excess in excesses)
    print(f"{row['name']:<24}{cells}", flush=True)


def print_second_thread(rows):
    """What the second thread brings: elapsed seconds with one over elapsed seconds with two."""
    by_name = {row["name"]: row for row in rows}
    pairs = [(name, row, by_name.get(name + SECOND_THREAD)) for name, row in by_name.items()]
    pairs = [pair for pair in pairs if pair[2]]
    if pairs:
        print(f"\n{'elapsed with one thread / with two':<40}{'official':>10}{'ours':>10}")
    for name, one, two in pairs:
        gains = (one[f"{side}_elapsed_s"] / two[f"{side}_elapsed_s"] for side in ("official", "ours"))
        print(f"{name:<40}" + "".join(f"{gain:>9.2f}x" for gain in gains))


def print_versions():
    """What really computes on the official side: versions, and the kernel that each BLAS has
    chosen."""
    from threadpoolctl import threadpool_info

    print(f"machine: {processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}")
    versions = (platform.python_version(), torch.__version__, scipy.__version__, numpy.__version__)
    print("official: python {}, torch {}, scipy {}, numpy {}".format(*versions))
    for library in threadpool_info():
        if library["user_api"] == "blas":
            package = Path(library["filepath"]).parent.name.removesuffix(".libs")
            print(f"  {package}: {library['internal_api']} {library['version']}, kernel {library['architecture']}")
    for line in torch.__config__.show().splitlines():
        if "Math Kernel Library" in line or "CPU capability" in line:
            print(f"  torch: {line.strip(' -')}")


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


def compare(arguments):
    rounds = 1 if arguments.quick else arguments.rounds
    chosen = [
        (work, threads)
        for work in (QUICK if arguments.quick else WORKS)
        for threads in (1, 2)
        if arguments.threads in (None, threads)
        if arguments.only in work.name + (SECOND_THREAD if threads == 2 else "")
    ]
    if not chosen:
        sys.exit(f"no row's name contains {arguments.only!r}")
    print_versions()
    print_header(rounds)
    rows, objectives = [], {}
    with tempfile.TemporaryDirectory(prefix="qera-peers-") as folder:
        data = Data(Path(folder))
        for work, threads in chosen:
            rows.append(measure_row(work, threads, rounds, data, arguments.peer, objectives))
            print_row(rows[-1])
    print_second_thread(rows)
    print("\nours: " + ", ".join(sorted({str(row["kernel"]) for row in rows})))
    others = max(row["others"] for row in rows)
    if others > 0.2:
        print(f"other processes kept up to {others:.1f} CPUs busy meanwhile: do not trust the elapsed seconds")
    if arguments.json:
        arguments.json.write(json.dumps(rows, indent=1) + "\n")


def count(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def parse():
    parser = argparse.ArgumentParser(prog="run", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    comparison = commands.add_parser("compare", prog="benches/peers/run")
    comparison.add_argument("--peer", required=True, help=argparse.SUPPRESS)
    comparison.add_argument("--json", metavar="FILE", type=argparse.FileType("w"), help="write the rows there too")
    comparison.add_argument("--rounds", type=count, default=3)
    comparison.add_argument("--only", metavar="SUBSTRING", default="", help="only rows whose name contains it")
    comparison.add_argument("--threads", type=int, choices=(1, 2), help="only rows of one thread, or of two")
    comparison.add_argument("--quick", action="store_true", help="one round of small sizes: a test of this script")
    folding = commands.add_parser("accumulate")
    folding.add_argument("--rows", required=True)
    solving = commands.add_parser("solve")
    solving.add_argument("--problem", required=True)
    solving.add_argument("--rank", type=count, required=True)
    solving.add_argument("--out", required=True)
    for measurement in (folding, solving):
        measurement.add_argument("--threads", type=count, required=True)
    return parser.parse_args()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the temporary folder goes
    arguments = parse()
    if arguments.command == "compare":
        compare(arguments)
    else:
        print(json.dumps({"accumulate": accumulate, "solve": solve}[arguments.command](arguments)))


if __name__ == "__main__":
    main()
