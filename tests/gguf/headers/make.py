"""Writes sound files with gguf's own writer, and the .dat of llama.cpp, which has no other writer,
by its layout.

    python3 make.py # model.gguf, adapter.gguf, imatrix.gguf and imatrix.dat beside it, for
    tests/tests/gguf_headers
"""

import pathlib
import struct

import gguf
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
TYPES = gguf.GGMLQuantizationType
# ggml stores a block of Q8_1 in 36 bytes; gguf 0.19 has 40, and nobody writes it.
WRITTEN = [of for of in TYPES if of != TYPES.Q8_1]


def raw(random, of, ne):
    """A tensor of random bytes: its shape in numpy's order, the row in bytes."""
    block, size = gguf.GGML_QUANT_SIZES[of]
    shape = (*ne[:0:-1], ne[0] // block * size)
    return random.integers(0, 256, shape, dtype=np.uint8)


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def model(path):
    """Five tensors of as many types, and a tokenizer of a few words."""
    random, writer = np.random.default_rng(1), gguf.GGUFWriter(path, "llama")
    writer.add_type("model")
    writer.add_custom_alignment(64)
    writer.add_context_length(2048)
    writer.add_rope_freq_base(10000.0)
    writer.add_bool("llama.causal", True)
    writer.add_token_list(["<s>", "\n", "ä", ""])
    writer.add_array("llama.heads", [4, 2])
    for name, of, ne in [
        ("token_embd.weight", TYPES.Q4_0, [64, 3]),
        ("blk.0.attn_q.weight", TYPES.F32, [4, 2]),
        ("blk.0.attn_norm.weight", TYPES.F16, [5]),
        ("blk.0.ffn_gate_exps.weight", TYPES.BF16, [2, 3, 2]),
        ("ids", TYPES.I32, [1, 1, 1, 3]),
    ]:
        writer.add_tensor(name, raw(random, of, ne), raw_dtype=of)
    write(writer)


def adapter(path):
    """A LoRA of two pairs, one of them in Q8_0."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for name, rank, of in [("blk.0.attn_q.weight", 2, TYPES.F16), ("blk.1.ffn_up.weight", 32, TYPES.Q8_0)]:
        for ending, shape in [("lora_a", (rank, 32)), ("lora_b", (3, rank))]:
            values = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape) / 8 - 1
            data = gguf.quants.quantize(values, of)
            writer.add_tensor(f"{name}.{ending}", data, raw_dtype=of)
    write(writer)


def imatrix(path, weights, chunks=3, chunk_size=16):
    """`weights`: name -> (sums of squares, counts, sums or None); matrices first."""
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["text.txt"])
    writer.add_uint32("imatrix.chunk_count", chunks)
    writer.add_uint32("imatrix.chunk_size", chunk_size)
    for name, (squares, counts, sums) in weights.items():
        writer.add_tensor(f"{name}.in_sum2", squares.astype(np.float32))
        writer.add_tensor(f"{name}.counts", counts.astype(np.float32).reshape(-1, 1))
        if sums is not None:
            writer.add_tensor(f"{name}.in_sum", sums.astype(np.float32))
        writer.add_tensor(f"{name}.stats", np.zeros(12, np.float32))
    write(writer)


def dat(path, weights, chunks=3):
    """`weights`: name -> (mean squares, chunks)."""
    parts = [struct.pack("<i", len(weights))]
    for name, (means, count) in weights.items():
        values = (means.reshape(-1) * count).astype("<f4")
        parts += [struct.pack("<i", len(name)), name.encode(), struct.pack("<ii", count, values.size), values.tobytes()]
    parts += [struct.pack("<ii", chunks, 8), b"text.txt"]
    path.write_bytes(b"".join(parts))


def main():
    model(HERE / "model.gguf")
    adapter(HERE / "adapter.gguf")
    dense = np.array([[3.0, 12.0, 0.0, 0.75]])
    experts = np.array([[8.0, 2.0], [0.0, 0.0], [1.0, 0.5]])
    weights = {
        "blk.0.attn_q.weight": (dense, np.array([3.0]), np.array([[3.0, -6.0, 0.0, 0.75]])),
        "blk.0.ffn_down_exps.weight": (experts, np.array([4.0, 0.0, 1.0]), None),
    }
    imatrix(HERE / "imatrix.gguf", weights)
    dat(HERE / "imatrix.dat", {"blk.0.attn_q.weight": (dense / 3, 3), "blk.0.ffn_up.weight": (experts[0] / 4, 3)})


if __name__ == "__main__":
    main()
