"""Our readers against gguf's: names, shapes, types, offsets and sizes of the same files, means of
the same imatrix, and an imatrix that our writer wrote. Needs gguf 0.19 and numpy.

    python3 tests/gguf/headers/test_headers.py # QERA_GGUF_HEADERS: the binary, where it is built
    already
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import gguf
import make
import numpy as np

ROOT = make.HERE.parents[2]
FILES = 60


def binary():
    if "QERA_GGUF_HEADERS" in os.environ:
        return pathlib.Path(os.environ["QERA_GGUF_HEADERS"])
    build = ["cargo", "build", "--quiet", "--release", "--locked", "-p", "qera-tests", "--bin", "gguf_headers"]
    subprocess.run(build, cwd=ROOT, check=True)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "gguf_headers"


def said(*arguments):
    out = subprocess.run([BINARY, *arguments], check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def random_model(random, path):
    """A file of up to 20 tensors, every type among them in turn, and keys of every type."""
    writer = gguf.GGUFWriter(path, "llama")
    if random.random() < 0.7:
        writer.add_custom_alignment(int(2 ** random.integers(3, 9)))
    for add, value in [
        (writer.add_uint8, 255), (writer.add_int8, -1), (writer.add_uint16, 7), (writer.add_int16, -7),
        (writer.add_uint32, 1), (writer.add_int32, -3), (writer.add_float32, 0.5), (writer.add_bool, False),
        (writer.add_uint64, 2**63), (writer.add_int64, -(2**62)), (writer.add_float64, 1e300), (writer.add_string, "é\n"),
    ]:
        if random.random() < 0.5:
            add(f"some.{add.__name__}", value)
    writer.add_array("tokens", ["a", "", "ü"] * int(random.integers(1, 9)))
    writer.add_array("numbers", [int(n) for n in random.integers(-5, 5, 1 + random.integers(0, 9))])
    for index in range(int(random.integers(0, 20))):
        of = make.WRITTEN[(index + int(random.integers(0, len(make.WRITTEN)))) % len(make.WRITTEN)]
        block, _ = gguf.GGML_QUANT_SIZES[of]
        ne = [block * int(random.integers(1, 4)), *(int(n) for n in random.integers(1, 5, random.integers(0, 4)))]
        writer.add_tensor(f"blk.{index}.{of.name}.weight", make.raw(random, of, ne), raw_dtype=of)
    make.write(writer)


def compare(path, ours):
    theirs, header = gguf.GGUFReader(path), ours["header"]
    assert "refused" not in header, (path, header)
    assert header["version"] == 3 and header["alignment"] == theirs.alignment, path
    architecture = theirs.get_field("general.architecture")
    assert header["architecture"] == (architecture.contents() if architecture else None), path
    assert len(header["tensors"]) == len(theirs.tensors), path
    for our, their in zip(header["tensors"], theirs.tensors):
        expected = (their.name, list(map(int, their.shape)), int(their.tensor_type), int(their.data_offset), int(their.n_bytes))
        assert tuple(our[key] for key in ("name", "ne", "type", "start", "bytes")) == expected, (path, our, expected)
    return len(theirs.tensors)


def models(work):
    random, paths = np.random.default_rng(12), []
    for index in range(FILES):
        paths.append(work / f"{index}.gguf")
        random_model(random, paths[-1])
    tensors = sum(map(compare, paths, said(*paths)))
    seen = {tensor.tensor_type for path in paths for tensor in gguf.GGUFReader(path).tensors}
    assert seen == set(make.WRITTEN), set(make.WRITTEN) - seen
    print(f"models: {FILES} files, {tensors} tensors, {len(seen)} types")


def imatrices(work):
    random, weights, means = np.random.default_rng(3), {}, {}
    for index in range(8):
        matrices, width = (1, 100 + index) if index < 5 else (index, 32)
        squares, sums = random.random((matrices, width)) * 1e4, random.standard_normal((matrices, width))
        counts = random.integers(1, 1000, matrices).astype(np.float64)
        if matrices > 1:
            counts[1], squares[1], sums[1] = 0, 0, 0
        name = f"blk.{index}.ffn_down.weight"
        weights[name] = (squares, counts, sums if index % 2 else None)
        with np.errstate(invalid="ignore"):
            means[name] = squares.astype(np.float32).astype(np.float64) / counts[:, None]
    path, again, old = work / "i.gguf", work / "again.gguf", work / "i.dat"
    make.imatrix(path, weights)
    [ours] = said("--rewrite", again, path)
    [ours_again] = said(again)
    compare(path, ours), compare(again, ours_again)
    for read in (ours["imatrix"], ours_again["imatrix"]):
        assert (read["counts_are"], read["chunks"], read["chunk_size"], read["datasets"]) == ("rows", 3, 16, ["text.txt"])
        assert [weight["name"] for weight in read["weights"]] == sorted(weights)
        for weight in read["weights"]:
            squares, counts, sums = weights[weight["name"]]
            assert weight["counts"] == list(counts), weight["name"]
            for mean, expected, count in zip(weight["mean_squares"], means[weight["name"]], counts):
                assert mean is None if count == 0 else np.array_equal(mean, expected), weight["name"]
            stored = None if sums is None else sums.astype(np.float32).reshape(-1)
            assert weight["sums_of_x"] is None if stored is None else np.array_equal(weight["sums_of_x"], stored)
    # What our writer wrote, as llama-quantize asks for it.
    theirs = gguf.GGUFReader(again)
    keys = ["general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"]
    assert [theirs.get_field(key).contents() for key in keys] == ["imatrix", ["text.txt"], 3, 16]
    names = [tensor.name for tensor in theirs.tensors]
    assert names == sorted(names) and len(names) == 2 * len(weights) + 4
    written = {tensor.name: tensor.data for tensor in theirs.tensors}
    for name, (squares, counts, _) in weights.items():
        assert np.array_equal(written[f"{name}.in_sum2"], squares.astype(np.float32)), name
        assert np.array_equal(written[f"{name}.counts"].reshape(-1), counts), name
    make.dat(old, {name: (means[name][:1], 3) for name in weights})
    [ours] = said(old)
    assert ours["imatrix"]["counts_are"] == "chunks" and len(ours["imatrix"]["weights"]) == len(weights)
    for weight in ours["imatrix"]["weights"]:
        assert np.allclose(weight["mean_squares"][0], means[weight["name"]][0], rtol=2e-7), weight["name"]
    print(f"imatrix: {len(weights)} weights, both layouts, and as we write it")


def committed(work):
    """The files of tests/tests/gguf_headers are what the writers make."""
    make.HERE, here = work, make.HERE
    make.main()
    for name in ("model.gguf", "imatrix.gguf", "imatrix.dat"):
        assert (work / name).read_bytes() == (here / name).read_bytes(), f"{name}: run {here}/make.py"
    compare(work / "model.gguf", said(work / "model.gguf")[0])
    print("committed files: as made")


if __name__ == "__main__":
    BINARY = binary()
    with tempfile.TemporaryDirectory() as folder:
        for test in (models, imatrices, committed):
            work = pathlib.Path(folder) / test.__name__
            work.mkdir()
            test(work)
