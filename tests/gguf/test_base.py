"""W~ that the daemon writes as a GGUF: what Python's `gguf` reads there is W~, and llama.cpp loads
and multiplies it."""

import gguf
import llama_cpp
import numpy as np
from corrected import Run
from test_tap import TapTests, Witness, shards
from tiny import TOKENS, write_tiny

SEQUENCES = [np.random.default_rng(seed).integers(0, TOKENS, 64).tolist() for seed in range(8)]
# Options, the type of the layers' tensors, general.file_type.
GRIDS = {
    "mxint3": ([], "Q4_0", 2),
    "mxint5": ([], "Q5_0", 8),
    "mxint8": ([], "Q8_0", 7),
    "q4-0": ([], "Q4_0", 2),
    "mxint4": (["--block-size", "16"], "BF16", 32),
}
SAID = {"general.file_type", "general.quantization_version"}


def mxint(weight, bits, block):
    """By the definition: integers that share the power of two of the largest, halves to even."""
    values = weight.astype(np.float64).reshape(-1, block)
    exponent = np.frexp(np.abs(values).max(1, keepdims=True))[1] - 1
    step = np.exp2(exponent - (bits - 2.0))
    most = 2 ** (bits - 1) - 1
    return (np.clip(np.rint(values / step), -most, most) * step).reshape(weight.shape).astype(np.float32)


def read(path):
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return fields, {tensor.name: tensor for tensor in reader.tensors}


def numbers(tensor):
    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    return values.reshape([int(n) for n in reversed(tensor.shape)])


class BaseTests:
    def __init__(self, daemon, work):
        self.daemon, self.work = daemon, work / "base"
        self.work.mkdir()
        self.model = self.work / "tiny.gguf"
        self.weights = write_tiny(self.model)
        with llama_cpp.RecordedModel(self.model, self.work / "shards", sequence=64, threads=2) as running:
            for tokens in SEQUENCES:
                running.feed_tokens(tokens)

    def write(self, name, *options):
        """The base that a run writes."""
        out = self.work / name
        given = ["--watch", self.work / "shards", "--checkpoint", self.model, "--out", out, "--rank", "4"]
        Run(self.daemon, "--once", *given, *options).expect(0)
        return out / "base-gguf" / "model.gguf"

    def layers(self):
        return [name for name, array in self.weights.items() if "blk" in name and array.ndim == 2]

    def products(self, model):
        """What llama.cpp multiplies: rows and products of each layer."""
        ordinary, llama_cpp.Tap = llama_cpp.Tap, Witness
        folder = self.work / f"products-{model.parent.parent.name}"
        try:
            with llama_cpp.RecordedModel(model, folder, sequence=64, threads=2) as running:
                running.feed_tokens(SEQUENCES[0])
                products = running.tap.products
        finally:
            llama_cpp.Tap = ordinary
        return shards(folder)[0], products

    def check_engine(self, model, bound):
        """llama.cpp rounds the rows that it multiplies with blocks to 8 bits."""
        weights = {name: numbers(tensor) for name, tensor in read(model)[1].items() if name in self.layers()}
        shard, products = self.products(model)
        TapTests.check_products(self, shard, products, weights, bound)

    def test_each_grid_is_read_by_others_as_w_and_runs(self):
        before, source = read(self.model)
        for quantizer, (options, kind, file_type) in GRIDS.items():
            model = self.write(quantizer, "--quantizer", quantizer, "--emit-base=gguf", *options)
            fields, tensors = read(model)
            assert {k: v for k, v in fields.items() if k not in SAID} == {k: v for k, v in before.items() if k not in SAID}
            assert (fields["general.file_type"], fields["general.quantization_version"]) == (file_type, 2)
            assert list(tensors) == list(source)
            for name, tensor in tensors.items():
                if name not in self.layers():
                    assert np.array_equal(tensor.data, source[name].data), name
                    continue
                assert tensor.tensor_type.name == kind, f"{name}: {tensor.tensor_type.name}"
                if quantizer.startswith("mxint"):
                    block = int(options[1]) if options else 32
                    expected = mxint(self.weights[name], int(quantizer[5:]), block)
                else:
                    expected = gguf.dequantize(gguf.quantize(self.weights[name], tensor.tensor_type), tensor.tensor_type)
                assert np.array_equal(numbers(tensor), expected), name
            self.check_engine(model, 1e-2)

    def test_what_was_rounded_under_the_rows_runs_and_is_another(self):
        model = self.write("projected", "--quantizer", "mxint3", "--rounding", "projected")
        _, tensors = read(model)
        nearest = {name: mxint(self.weights[name], 3, 32) for name in self.layers()}
        assert all(tensors[name].tensor_type.name == "Q4_0" for name in nearest)
        assert not any(np.array_equal(numbers(tensors[name]), nearest[name]) for name in nearest)
        self.check_engine(model, 1e-2)
