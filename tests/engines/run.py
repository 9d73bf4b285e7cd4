"""The `engines` stage: runs every test_* method of the suites and counts. See run.sh."""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE.parent / "gguf"), str(HERE.parent / "peft"), str(ROOT / "taps")]

from measured import Measured, Size
from suites import report, run
from test_divergence import DivergenceTests, WholeDivergenceTests, corrected
from test_forms import FormsTests
from test_perplexity import PerplexityTests, ReferencePerplexityTests
from test_served import ServedTests
from text import fixture_text

SHORT = Size(blocks=tuple(range(0, 30, 3)), recorded=8, judged=2, diverging=2)
LONG = Size(blocks=tuple(range(30)), recorded=32, judged=6, diverging=2)
FIXTURE = {"calibration": 160, "evaluation": 64}  # sequences


def texts(long):
    if not long:
        return {name: fixture_text(ROOT, name, count) for name, count in FIXTURE.items()}
    folder = os.environ.get("QERA_SMOLLM2")
    if not folder:
        raise SystemExit("run.sh: the long form needs QERA_SMOLLM2, a folder that tests/smollm2/source.sh makes")
    return {name: pathlib.Path(folder, f"{name}.txt").read_text(encoding="utf-8") for name in FIXTURE}


class Stage:
    """The suites by name, and what those that ran have measured."""

    def __init__(self, daemon, work, long):
        self.daemon, self.work, self.long, self.ran = daemon, work, long, {}

    @functools.cached_property
    def texts(self):
        return texts(self.long)

    @functools.cached_property
    def measured(self):
        """In the short form with noise, so that a few rows and blocks show what Q4_0 loses."""
        return Measured(self.daemon, self.work / "smollm2", not self.long, LONG if self.long else SHORT, self.texts)

    def forms(self):
        pythons = {name: os.environ[f"QERA_{name.upper()}_PYTHON"] for name in ("peft", "mlx")}
        folder = self.work / "forms"
        folder.mkdir()
        return FormsTests(self.daemon, folder, pythons)

    def perplexity(self):
        return (ReferencePerplexityTests if self.long else PerplexityTests)(self.measured)

    def divergence(self):
        return (WholeDivergenceTests if self.long else DivergenceTests)(self.measured)

    def served(self):
        base = self.measured.quantized("Q4_0")
        return ServedTests(self.measured, base, self.measured.solved(*corrected("Q4_0", base, "r64 q8_0")).adapter)

    def run(self, name):
        def make():
            self.ran[name] = getattr(self, name)()
            return self.ran[name]

        return run(name, make)

    def line(self):
        """What was measured, on one line."""
        ppl = self.ran["perplexity"].figures if "perplexity" in self.ran else {}
        rows = self.ran["divergence"].rows if "divergence" in self.ran else {}
        kld = {f"{row} {cell}": figures["kld"] for row, cells in rows.items() for cell, figures in cells.items()}
        figures = {"ppl": ppl, "kld": kld}
        rounded = {name: {key: float(f"{value:.5g}") for key, value in of.items()} for name, of in figures.items()}
        return f"engines: {json.dumps(rounded)}"


def print_tables(ran):
    """As docs/llama-cpp.md has them."""
    if "perplexity" in ran:
        for name, figure in ran["perplexity"].figures.items():
            print(f"| {name} | {figure:.2f} |")
    if "divergence" in ran:
        for name, cells in ran["divergence"].rows.items():
            figures = [f"{cell['kld']:.4f} | {cell['ppl']:.2f} | {cell['bits']:.2f}" for cell in cells.values()]
            print(f"| {name} | {' | '.join(figures)} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True, type=pathlib.Path, help="the qera-daemon binary")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="where the long form's work stays")
    parser.add_argument("--long", action="store_true", help="the whole tables")
    parser.add_argument("suites", nargs="*", help="only those whose names contain one of these")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if not arguments.long:
            arguments.work = stack.enter_context(tempfile.TemporaryDirectory())
        stage = Stage(arguments.daemon.resolve(), pathlib.Path(arguments.work).resolve(), arguments.long)
        suites = ("perplexity", "divergence") if arguments.long else ("forms", "perplexity", "divergence", "served")
        wanted = [name for name in suites if not arguments.suites or any(part in name for part in arguments.suites)]
        results = [stage.run(name) for name in wanted]
    if arguments.long:
        print_tables(stage.ran)
    print(stage.line())
    report("engines", results)


if __name__ == "__main__":
    main()
