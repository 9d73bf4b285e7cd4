"""`export imatrix` beside llama.cpp's own tools. See llama_imatrix.sh."""

import argparse
import ctypes
import functools
import json
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE.parent / "peft"), str(ROOT / "taps")]

import gguf
import numpy as np
from corrected import Run
from llama_cpp import RecordedModel
from recorded import Recorded
from smollm2 import LINEAR, SmolLM2, dequantized, module_of
from suites import report, run
from text import fixture_text

CHUNK = 512  # tokens; llama-imatrix sums rows of batches of at least 16
UNIT = 2.0**-24  # of f32: the most that rounding changes, relative
LAYERS = [f"blk.{block}.{name}" for block in range(30) for name in LINEAR]
# 576 is no multiple of 256: rows of that width get the type that llama-quantize falls back to.
TYPES = ("IQ2_XXS", "Q4_K_M", "IQ4_NL")


def cut(running, text, chunks):
    """Tokens of `text` in chunks, as llama-imatrix cuts them: where the vocabulary has BOS it
    begins the text and takes the place of each chunk's first token."""
    tokens, begins = running.tokenize(text), running.llama.vocab_get_add_bos(running.vocabulary)
    first = [running.llama.vocab_bos(running.vocabulary)] if begins else []
    tokens = first + tokens
    assert len(tokens) >= max(chunks, 2) * CHUNK, f"{len(tokens)} tokens are too few"
    cuts = (tokens[at : at + CHUNK] for at in range(0, chunks * CHUNK, CHUNK))
    return [first + chunk[len(first) :] for chunk in cuts]


class Entries:
    """What an imatrix has of each weight."""

    def __init__(self, path):
        self.path, self.parts = path, {}
        self.reader = gguf.GGUFReader(path)
        for tensor in self.reader.tensors:
            weight, part = tensor.name.rsplit(".", 1)
            self.parts.setdefault(weight, {})[part] = np.array(tensor.data).ravel()

    def number(self, key):
        return self.reader.fields[f"imatrix.{key}"].contents()

    def mean_squares(self, layer):
        of = self.parts[f"{layer}.weight"]
        return of["in_sum2"].astype(np.float64) / of["counts"][0]


class Case:
    """The model, the text, and what both sides make of it; what is there is not made again."""

    def __init__(self, daemon, tools, work, chunks):
        self.daemon, self.tools, self.work, self.chunks = daemon, tools, work, chunks
        self.model = SmolLM2(work)
        self.text = work / "text.txt"
        self.text.write_text(fixture_text(ROOT, "calibration", 640), encoding="utf-8")

    def tool(self, name, *options):
        return Run(self.tools / name, *options).expect(0).said

    def imatrix_tool(self, files, *options):
        """llama-imatrix on files that are there; it asks for a model, and opens none."""
        given = [part for file in files for part in ("--in-file", file)]
        return self.tool("llama-imatrix", "-m", self.model.gguf, *given, *options)

    @functools.cached_property
    def recorded(self):
        """By the tap, in the library that the tools were built with."""
        folder, part = self.work / f"rows-{self.chunks}", self.work / "rows.part"
        if not folder.exists():
            shutil.rmtree(part, ignore_errors=True)
            library = ctypes.CDLL(str(self.tools / "libllama.so"))
            with RecordedModel(self.model.gguf, part, sequence=CHUNK, threads=2, library=library) as running:
                for chunk in cut(running, self.text.read_text(encoding="utf-8"), self.chunks):
                    running.feed_tokens(chunk)
                assert not running.tap.dropped_shards
            part.rename(folder)
        return Recorded(folder)

    @functools.cached_property
    def theirs(self):
        path, part = self.work / f"theirs-{self.chunks}.gguf", self.work / "theirs.part.gguf"
        if not path.exists():
            made = ["-m", self.model.gguf, "-f", self.text, "-o", part, "--chunks", self.chunks, "--no-ppl"]
            self.tool("llama-imatrix", *made, "-c", CHUNK, "-b", CHUNK, "-ub", CHUNK, "-t", 2)
            part.rename(path)
        return Entries(path)

    @functools.cached_property
    def ours(self):
        """Gathered and exported by this binary, anew each time."""
        out = self.work / "gathered"
        shutil.rmtree(out, ignore_errors=True)
        options = ["--watch", self.recorded.folder, "--checkpoint", self.model.checkpoint, "--out", out]
        Run(self.daemon, *options, "--once", "--method", "approx", "--rank", 8).expect(0)
        return self.export(out / "state", "ours.gguf", "--checkpoint", self.model.checkpoint)

    def export(self, state, name, *options):
        path = self.work / name
        path.unlink(missing_ok=True)
        Run(self.daemon, "export", "imatrix", "--state", state, "--out", path, *options).expect(0)
        return Entries(path)

    def from_imatrix(self, imatrix, *options):
        """What the daemon makes of an imatrix alone: its manifest's layers by name."""
        out = self.work / "from-imatrix"
        shutil.rmtree(out, ignore_errors=True)
        made = ["--checkpoint", self.model.checkpoint, "--imatrix", imatrix, "--method", "approx", "--rank", 8]
        Run(self.daemon, *made, "--out", out, *options).expect(0)
        manifest = json.loads((out / "current/qera_manifest.json").read_text())
        return {layer["name"]: layer for layer in manifest["layers"]}


class LlamaImatrixTests:
    def __init__(self, case):
        self.case = case
        self.ours, self.theirs = case.ours, case.theirs
        self.rows = case.chunks * CHUNK

    def test_weights_and_counts_are_the_same(self):
        weights = sorted(f"{layer}.weight" for layer in LAYERS)
        for entries in (self.ours, self.theirs):
            assert sorted(entries.parts) == weights, set(entries.parts) ^ set(weights)
            for weight, parts in entries.parts.items():
                assert parts["counts"].tolist() == [self.rows], f"{entries.path.name} {weight}: {parts['counts']}"
            assert entries.number("chunk_count") == self.case.chunks, entries.path
            assert entries.number("chunk_size") == CHUNK, entries.path

    def test_names_of_the_state_are_those_of_the_checkpoint(self):
        """The tap's names are GGUF's already."""
        other = self.case.export(self.case.work / "gathered/state", "by-recorded-names.gguf")
        assert other.path.read_bytes() == self.ours.path.read_bytes()

    def test_sums_differ_by_the_rounding_of_f32_sums(self):
        """The tool adds rows up in f32, of which each addition and each square costs a rounding;
        ours are rounded once. Its sums of x are rebuilt bit for bit from the recorded rows: both
        saw the same ones. (Whether its sums of squares are, depends on whether the compiler fused
        product and sum.)"""
        case, differences, ulps, rebuilt = self.case, [], [], 0
        for layer in LAYERS:
            rows = case.recorded.rows(layer)
            ours, theirs = (of.parts[f"{layer}.weight"] for of in (self.ours, self.theirs))
            summed, squares = np.zeros((2, rows.shape[1]), np.float32)
            for row in rows.astype(np.float32):
                summed += row
                squares += row * row
            rebuilt += np.array_equal(squares, theirs["in_sum2"])
            assert np.array_equal(summed, theirs["in_sum"]), f"{layer}: the tool saw other rows"
            exact, plain = np.square(rows).sum(0), rows.sum(0)
            ulps.append(np.abs(ours["in_sum2"] / exact - 1).max() / UNIT)
            assert ulps[-1] <= 1.01, f"{layer}: our sums are off by {ulps[-1]} roundings"
            off = np.abs(ours["in_sum"] - plain) / np.sqrt(self.rows * exact)
            assert off.max() <= 1.01 * UNIT, f"{layer}: our sums of x are off by {off.max()}"
            differences.append(np.abs(ours["in_sum2"].astype(np.float64) / theirs["in_sum2"] - 1))
            bound = (self.rows + 2) * UNIT
            assert differences[-1].max() <= bound, f"{layer}: sums of squares differ by {differences[-1].max()}"
        every = np.concatenate(differences)
        worst = max(zip((of.max() for of in differences), LAYERS))
        print(
            f"in_sum2 over {self.rows} rows: relative difference {np.median(every):.2g} median, "
            f"{np.quantile(every, 0.99):.2g} at 99 %, {worst[0]:.2g} at most ({worst[1]}); ours are off by "
            f"{max(ulps):.3f} roundings at most; theirs are f32 sums bit for bit of {rebuilt} of {len(LAYERS)} weights"
        )

    def test_theirs_is_read_and_gives_the_same_corrections(self):
        """In both of their layouts."""
        legacy = self.case.work / "theirs.dat"
        self.case.imatrix_tool([self.theirs.path], "-o", legacy, "--output-format", "dat")
        ours = self.case.from_imatrix(self.ours.path)
        assert ours.keys() == {module_of(f"{layer}.weight") for layer in LAYERS}
        for path in (self.theirs.path, legacy):
            theirs = self.case.from_imatrix(path)
            assert ours.keys() == theirs.keys(), path
            for name, layer in ours.items():
                for what in ("without", "with", "rounded"):
                    error, other = (of["diagonal_error"][what] for of in (layer, theirs[name]))
                    assert abs(error / other - 1) < 1e-5, f"{path.name} {name}: {what} is {error} and {other}"

    def test_llama_imatrix_adds_ours_to_theirs(self):
        both = self.case.work / "both.gguf"
        self.case.imatrix_tool([self.ours.path, self.theirs.path], "-o", both)
        summed = Entries(both)
        assert summed.parts.keys() == self.ours.parts.keys()
        for weight, parts in summed.parts.items():
            for part in ("in_sum2", "in_sum", "counts"):
                expected = self.ours.parts[weight][part] + self.theirs.parts[weight][part]
                assert np.array_equal(parts[part], expected), f"{weight}.{part}"

    def test_llama_imatrix_shows_ours(self):
        said = self.case.imatrix_tool([self.ours.path], "--show-statistics")
        assert f"({len(LAYERS)} tensors)" in said and "no activation data" not in said, said[:2000]

    def test_llama_quantize_takes_ours_and_the_file_is_corrected(self):
        case = self.case
        for kind in TYPES:
            file = case.work / f"quantized-{kind}.gguf"
            # The embedding is Q8_0 in what PyPI has, and stays so.
            keep = ["--allow-requantize", "--token-embedding-type", "Q8_0"]
            said = case.tool("llama-quantize", *keep, "--imatrix", self.ours.path, case.model.gguf, file, kind, 2)
            wanted = f"have {len(LAYERS)} importance matrix entries"
            assert wanted in said and "did not find weights" not in said, said[:3000]
            stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
            layers = case.from_imatrix(self.ours.path, "--quantized", file)
            for layer in LAYERS:
                found = layers[module_of(f"{layer}.weight")]
                assert found["status"] == "imatrix", f"{kind} {layer}: {found}"
                said, error = found["diagonal_error"], case.model.weight(f"{layer}.weight")
                error = error.astype(np.float64) - dequantized(stored[f"{layer}.weight"])
                without = (np.square(error) * self.ours.mean_squares(layer)).sum()
                assert abs(said["without"] / without - 1) < 1e-5, f"{kind} {layer}: {said}, not {without}"
                assert said["with"] < said["without"], f"{kind} {layer}: {said}"
            gain = np.mean([of["diagonal_error"]["with"] / of["diagonal_error"]["without"] for of in layers.values()])
            types = sorted({layer["read"]["type"] for layer in layers.values()})
            print(f"{kind}: {', '.join(types)}; rank 8 leaves {gain:.2f} of the diagonal error on average")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--daemon", required=True, help="the qera-daemon binary")
    parser.add_argument("--tools", required=True, type=pathlib.Path, help="the folder of llama-imatrix")
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--chunks", type=int, default=8)
    arguments = parser.parse_args()
    case = Case(arguments.daemon, arguments.tools, arguments.work, arguments.chunks)
    report("llama_imatrix", [run("llama_imatrix", lambda: LlamaImatrixTests(case))])


if __name__ == "__main__":
    main()
