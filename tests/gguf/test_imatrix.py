"""llama.cpp's imatrix: ours is what numpy sums, and a correction from one is that from the rows."""

import gguf
import numpy as np
from corrected import Corrected, Run
from recorded import mean_square

TYPES = gguf.GGUFValueType
# Of f32 sums, relative: llama.cpp's file has no other.
SUMS = 1e-6


def write_imatrix(path, sums, chunk):
    """Layer -> (sums of squares, rows), as llama.cpp's tool writes them."""
    writer = gguf.GGUFWriter(path, "")
    writer.kv_data[0].clear()
    writer.add_key_value("general.type", "imatrix", TYPES.STRING)
    writer.add_key_value("imatrix.datasets", ["calibration"], TYPES.ARRAY, TYPES.STRING)
    rows = max(count for _, count in sums.values())
    writer.add_key_value("imatrix.chunk_count", rows // chunk, TYPES.UINT32)
    writer.add_key_value("imatrix.chunk_size", chunk, TYPES.UINT32)
    for layer, (squares, count) in sorted(sums.items()):
        writer.add_tensor(f"{layer}.weight.in_sum2", squares.astype(np.float32).reshape(1, -1))
        writer.add_tensor(f"{layer}.weight.counts", np.array([[count]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class ImatrixTests:
    def __init__(self, acceptance):
        self.acceptance, self.original, self.binary = acceptance, acceptance.original, acceptance.binary
        self.sums = {layer: self.original.seen.sums(layer) for layer in self.original.layers}
        self.file = write_imatrix(self.original.folder / "ours.imatrix.gguf", self.sums, 512)

    def options(self, imatrix, out, *more):
        """Of a run that watches nothing."""
        options = self.acceptance.options(self.acceptance.files["Q4_1"], self.original.model.checkpoint, out, *more)
        at = options.index("--watch")
        return [*options[:at], *options[at + 2 :], "--imatrix", imatrix]

    def exported(self):
        """What the daemon exports of the statistics of a run."""
        state, path = self.acceptance.run("Q4_1").out / "state", self.original.folder / "exported.imatrix.gguf"
        path.unlink(missing_ok=True)
        Run(self.binary, "export", "imatrix", "--state", state, "--out", path).expect(0)
        return path

    def test_exported_sums_are_what_numpy_sums(self):
        reader = gguf.GGUFReader(self.exported())
        for key in ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"):
            assert key in reader.fields, f"llama-quantize asks for {key}"
        assert reader.fields["general.type"].contents() == "imatrix"
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        assert list(tensors) == sorted(tensors), "names are not sorted"
        assert all(tensor.tensor_type == gguf.GGMLQuantizationType.F32 for tensor in tensors.values())
        for layer, (squares, count) in self.sums.items():
            found = tensors.pop(f"{layer}.weight.in_sum2")
            assert [int(n) for n in found.shape] == [len(squares), 1], f"{layer}: {found.shape}"
            error = np.abs(found.data.ravel() / squares - 1).max()
            assert error < SUMS, f"{layer}: sums are off by {error}"
            assert tensors.pop(f"{layer}.weight.counts").data.ravel().tolist() == [count], layer
            if plain := tensors.pop(f"{layer}.weight.in_sum", None):
                expected = self.original.seen.rows(layer).sum(0)
                error = np.abs(plain.data.ravel() - expected) / np.sqrt(count * squares)
                assert error.max() < SUMS, f"{layer}: sums of x are off by {error.max()}"
        assert not tensors, f"of layers that were not recorded: {sorted(tensors)[:5]}"

    def test_approx_from_an_imatrix_is_approx_from_rows(self):
        """From the file of our sums, and from the one that the daemon exports."""
        from_rows = self.acceptance.run("Q4_1", method="approx")
        errors = self.acceptance.errors("Q4_1")
        for name, imatrix in (("ours", self.file), ("exported", self.exported())):
            out = self.original.folder / f"out-imatrix-{name}"
            if not (out / "current").exists():
                Run(self.binary, *self.options(imatrix, out, "--method", "approx")).expect(0)
            published = Corrected(out)
            assert published.layers.keys() == from_rows.layers.keys()
            for layer, error in errors.items():
                module, rows = self.original.module(layer), self.original.seen.rows(layer)
                one, other = (of.correction(module) for of in (published, from_rows))
                relative = np.linalg.norm(one - other) / np.linalg.norm(other)
                assert relative < 1e-4, f"{name} {module}: the corrections differ by {relative}"
                first, second = (mean_square(rows, error - correction) for correction in (one, other))
                assert abs(first / second - 1) < 1e-6, f"{name} {module}: f is {first} and {second}"

    def test_exact_is_refused(self):
        out = self.original.folder / "imatrix-exact"
        run = Run(self.binary, *self.options(self.file, out, "--method", "exact")).expect(2)
        assert "exact" in run.said and not out.exists(), run.said[-2000:]

    def test_another_models_is_refused(self):
        """A layer of another width."""
        layer = next(iter(self.sums))
        squares, count = self.sums[layer]
        sums = self.sums | {layer: (squares[:-32], count)}
        other = write_imatrix(self.original.folder / "other.imatrix.gguf", sums, 512)
        out = self.original.folder / "imatrix-other"
        run = Run(self.binary, *self.options(other, out, "--method", "approx"))
        assert run.code not in (0, 101) and layer in run.said and other.name in run.said, run.said[-2000:]
        assert not (out / "current").exists()
