"""Records, runs, judges, and prints a table. See run.sh."""

import argparse
import pathlib
import sys
import warnings

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "peft"), str(HERE.parent / "models"), str(HERE.parent.parent / "taps")]

import transformers
from forms import FORMS, FULL_PRECISION, ROUNDING_CPU, at_most
from judged import SEQUENCES, judge
from recording import record
from solved import Solved
from source import Source, digest


class Table:
    """Rows of what was measured, and what of it is out of bounds."""

    def __init__(self):
        self.rows, self.broken = [], []

    def figure(self, name, what, figure, bound):
        if not bound.holds(figure):
            self.broken.append(f"{name}: {what} {figure:.2f}, not within {bound.low:.2f} and {bound.high:.2f}")
        return f"{figure:.2f}"

    def add(self, name, *cells):
        self.rows.append((name, *cells))

    def print(self):
        head = ("form", "perplexity", "base alone", "wall s", "CPU s", "peak MB", "planned MB", "resident MB")
        for row in (head, ("---",) * len(head), *self.rows):
            print(f"| {' | '.join(row)} |")
        for line in self.broken:
            print(f"OUT OF BOUNDS {line}")


def took(run):
    megabytes = (run[key] / 1e6 for key in ("anonymous_bytes", "planned_bytes", "resident_bytes"))
    return (f"{run['wall_s']:.0f}", f"{run['cpu_s']:.0f}", *(f"{number:.0f}" for number in megabytes))


def measure(arguments, table):
    source, runs = Source(arguments.source), {}
    record(source, arguments.work / "activations")
    sequences = source.sequences("evaluation.txt", SEQUENCES)
    of = digest(source.model / "model.safetensors")
    full = judge(arguments.work / "full-precision.json", of, source.load, sequences)["corrected"]
    table.add("full precision", table.figure("full precision", "perplexity", full, FULL_PRECISION), *[""] * 6)
    for name in arguments.forms or FORMS:
        form, folder = FORMS[name], arguments.work / name
        solved = Solved(arguments.daemon, source.model, arguments.work / "activations", folder, form.options)
        figures = judge(folder / "perplexity.json", solved.digest(), solved.load, sequences)
        corrected = table.figure(name, "perplexity", figures["corrected"], form.corrected)
        base = table.figure(name, "perplexity of the base alone", figures["base"], form.base)
        table.add(name, corrected, base, *took(solved.took))
        runs[name] = solved.took["cpu_s"]
        if form.plain in runs:
            seconds = runs[name] - runs[form.plain]
            table.figure(name, "CPU seconds of rounding", seconds, at_most(ROUNDING_CPU))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True, type=pathlib.Path, help="the qera-daemon binary")
    parser.add_argument("--source", required=True, help="folder with model/, calibration.txt, evaluation.txt")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="recordings and results")
    parser.add_argument("forms", nargs="*", help=f"of {', '.join(FORMS)}; without any, all")
    arguments = parser.parse_args()
    if unknown := set(arguments.forms) - set(FORMS):
        parser.error(f"no form {', '.join(sorted(unknown))}")
    arguments.daemon, arguments.work = arguments.daemon.resolve(), arguments.work.resolve()
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", message="TypedStorage")
    table = Table()
    measure(arguments, table)
    table.print()
    raise SystemExit(1 if table.broken else 0)


if __name__ == "__main__":
    main()
