"""A real model, quantized by others, recorded by llama.cpp and corrected by the daemon: what it
says of each layer is what numpy computes from the weights, the file of W~ and the recorded rows."""

import hashlib
import json
import shutil

import gguf
import numpy as np
from corrected import Corrected, Run
from original import LONG_ROWS
from recorded import mean_square
from smollm2 import hugging_face_rows

RANK = 16
AGREE = 1e-5  # relative: R is made of f32 products
WHOSE_STATE_STAYS = ("Q4_1", "checkpoint", "exact")


class AcceptanceTests:
    """`original` is corrected on its own Q4_1 file and on those of `mixes`; runs of this binary
    that are there are not made again."""

    def __init__(self, binary, original, mixes):
        self.binary, self.original, self.mixes, self.runs = binary, original, mixes, {}
        with open(binary, "rb") as file:
            self.digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.files = {"Q4_1": original.model.file} | {mix.name: original.quantized(mix) for mix in mixes}

    def options(self, quantized, checkpoint, out, *more):
        selected = [f"--include=model.layers.{block}.*" for block in self.original.blocks]
        inputs = ["--watch", self.original.seen.folder, "--checkpoint", checkpoint, "--quantized", quantized]
        form = ["--format", "peft,gguf", "--dtype", "f32"]
        return [*inputs, "--out", out, "--once", "--rank", RANK, *form, *selected, *more]

    def run(self, name, form="checkpoint", method="exact"):
        """What a run with the file `name` published."""
        out = self.original.folder / f"out-{name}-{form}-{method}"
        if out in self.runs:
            return self.runs[out]
        options = self.options(self.files[name], getattr(self.original.model, form), out, "--method", method)
        stamp, made_by = out.with_suffix(".json"), json.dumps([self.digest, *map(str, options)])
        if not stamp.exists() or stamp.read_text() != made_by:
            shutil.rmtree(out, ignore_errors=True)
            Run(self.binary, *options).expect(0)
            if (name, form, method) != WHOSE_STATE_STAYS:
                shutil.rmtree(out / "state")  # as large as all statistics, and not asked for again
            stamp.write_text(made_by)
        self.runs[out] = Corrected(out)
        return self.runs[out]

    def errors(self, name):
        """Layer -> W - W~, [out, in]."""
        stored = self.original.stored(self.files[name])
        return {layer: self.original.weight(layer) - stored[layer] for layer in self.original.layers}

    def test_f_is_what_numpy_computes(self):
        for name in self.files:
            published, errors = self.run(name), self.errors(name)
            assert len(published.layers) == len(errors), sorted(published.layers)
            for layer, error in errors.items():
                module, rows = self.original.module(layer), self.original.seen.rows(layer)
                said = published.layers[module]
                assert said["rows"] == len(rows) and said["status"] == "solved", f"{name} {module}: {said}"
                without = mean_square(rows, error)
                corrected = mean_square(rows, error - published.correction(module))
                for what, found, expected in (
                    ("without", said["error"]["without"], without),
                    ("rounded", said["error"]["rounded"], corrected),
                    ("output_power", said["output_power"], mean_square(rows, self.original.weight(layer))),
                ):
                    assert abs(found / expected - 1) < AGREE, f"{name} {module}: {what} is {found}, not {expected}"
                assert corrected < without, f"{name} {module}: {corrected} of {without}"

    def test_exact_is_never_above_approx_on_rows_that_neither_has_seen(self):
        for name in self.files:
            exact, approx = (self.run(name, method=method) for method in ("exact", "approx"))
            for layer, error in self.errors(name).items():
                module, rows = self.original.module(layer), self.original.unseen.rows(layer)
                without = mean_square(rows, error)
                ours, other = (mean_square(rows, error - of.correction(module)) for of in (exact, approx))
                assert ours < without and ours <= other, (
                    f"{name} {module}: exact {ours / without:.4f}, approx {other / without:.4f} of no correction"
                )

    def test_both_forms_of_the_original_give_one_correction(self):
        for name in self.files:
            one, other = (self.run(name, form) for form in ("checkpoint", "gguf"))
            assert one.tensors.keys() == other.tensors.keys(), sorted(one.tensors.keys() ^ other.tensors.keys())
            for key, array in one.tensors.items():
                assert np.array_equal(array, other.tensors[key]), f"{name}: {key} differs"
            for module, layer in one.layers.items():
                found = other.layers[module]["error"]
                for what in ("without", "with", "rounded"):
                    assert abs(found[what] / layer["error"][what] - 1) < 1e-6, f"{name} {module}: {what}"

    def test_the_gguf_has_the_same_corrections_in_the_model_s_order_of_rows(self):
        for name in self.files:
            published = self.run(name)
            reader = gguf.GGUFReader(published.out / "current/adapter.gguf")
            said = {key: field.contents() for key, field in reader.fields.items()}
            for key, value in (
                ("general.type", "adapter"),
                ("general.architecture", "llama"),
                ("adapter.type", "lora"),
                ("adapter.lora.alpha", 0.0),
                ("qera.fingerprints.quantized", published.manifest["fingerprints"]["quantized"]),
            ):
                assert said[key] == value, f"{name}: {key} is {said[key]}, not {value}"
            tensors = {tensor.name: np.asarray(tensor.data, np.float64) for tensor in reader.tensors}
            assert len(tensors) == 2 * len(self.original.layers), sorted(tensors)
            for layer in self.original.layers:
                a, b = (tensors[f"{layer}.weight.lora_{side}"] for side in "ab")
                correction = published.correction(self.original.module(layer))
                found = hugging_face_rows(f"{layer}.weight", b @ a)
                most = 1e-12 * np.abs(correction).max()
                assert np.abs(found - correction).max() <= most, f"{name} {layer}"
                if layer.endswith(("attn_q", "attn_k")):
                    assert not np.allclose(b @ a, correction), f"{layer}: its rows lie where Hugging Face's do"

    def test_another_file_is_refused_by_tensor(self):
        """Rows in the wrong order, and a layer of another block: nothing of either is W."""
        block, tensors = self.original.blocks[-1], self.original.model.tensors
        query, up = f"blk.{block}.attn_q.weight", f"blk.{block}.ffn_up.weight"
        other = tensors[f"blk.{(block + 1) % 30}.ffn_up.weight"]
        turned = tensors[query].data.reshape(9, 32, 2, -1).swapaxes(1, 2).reshape(576, -1)
        for name, changed in (("turned", {query: turned}), ("exchanged", {up: other.data})):
            (wrong,) = changed
            kinds = {tensor: (tensors[tensor].tensor_type, data) for tensor, data in changed.items()}
            file = self.original.damaged(f"{name}.gguf", kinds)
            out = self.original.folder / f"refused-{name}"
            run = Run(self.binary, *self.options(file, self.original.model.checkpoint, out))
            assert run.code not in (0, 101) and f"'{wrong}'" in run.said, f"{name}: {run.code}\n{run.said[-2000:]}"
            assert file.name in run.said and "correlation" in run.said, run.said[-2000:]
            assert not (out / "current").exists()

    def test_a_state_knows_its_file(self):
        first, second = list(self.files)[:2]
        out = self.run(first).out  # whose state stays
        options = self.options(self.files[second], self.original.model.checkpoint, out)
        run = Run(self.binary, *options).expect(4)
        assert "belongs to another --quantized file" in run.said, run.said[-2000:]

    def test_what_would_quantize_is_a_usage_error(self):
        for option in (["--quantizer", "mxint4"], ["--rounding", "feedback"], ["--block-size", "32"], ["--emit-base"]):
            out = self.original.folder / "usage"
            options = self.options(self.files["Q4_1"], self.original.model.checkpoint, out, *option)
            run = Run(self.binary, *options).expect(2)
            assert option[0] in run.said and not out.exists(), run.said[-2000:]

    def test_each_tensor_is_held_against_w(self):
        """`plan` and the manifest have relative error and correlation, as numpy computes them."""
        for name in self.files:
            published, stored = self.run(name), self.original.stored(self.files[name])
            for layer in self.original.layers:
                weight, other = (of.astype(np.float64).ravel() for of in (self.original.weight(layer), stored[layer]))
                said = published.layers[self.original.module(layer)]["read"]
                assert said["tensor"] == f"{layer}.weight", said
                relative = np.linalg.norm(weight - other) / np.linalg.norm(weight)
                correlation = np.corrcoef(weight, other)[0, 1]
                assert abs(said["relative_error"] / relative - 1) < AGREE, f"{layer}: {said}, not {relative}"
                assert abs(said["correlation"] - correlation) < AGREE, f"{layer}: {said}, not {correlation}"

    def test_types_are_named(self):
        for mix in self.mixes:
            for layer in self.original.layers:
                said = self.run(mix.name).layers[self.original.module(layer)]["read"]["type"]
                assert said == (mix.long_rows if layer.endswith(LONG_ROWS) else mix.others), f"{layer}: {said}"
