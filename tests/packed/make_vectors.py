"""Writes the folders in tests/packed/vectors: small packed weights, and what other programs read in
them.

    python3 tests/packed/make_vectors.py            # writes them
    python3 tests/packed/make_vectors.py --check    # compares with those that are there

compressed-tensors (0.17 was used) packs and unpacks its own format, and reads AWQ GEMM by its
AutoAWQConverter, with scales widened to float32, so that a number is code times scale in float32.
GPTQ is packed and unpacked here in numpy, word for word as the format is described: `qweight` int32
[in * bits / 32, out], packed along in, the first code in the lowest bits; `qzeros` int32 [groups,
out * bits / 32], packed along out, one less (`gptq`, one taken off the words as integers, with its
borrows) or as they are (`gptq_v2`); `scales` [groups, out]; `g_idx` the group of each input.

Needs numpy, torch, safetensors and compressed-tensors.
"""

import json
import pathlib
import sys

import numpy
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.entrypoints.convert.converters.autoawq import AutoAWQConverter
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import load_file, save_file

FOLDER = pathlib.Path(__file__).resolve().parent / "vectors"
MODULE = "model.layers.0.mlp.up_proj"
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}


class Numbers:
    def __init__(self, seed):
        self.rng = numpy.random.default_rng(seed)

    def weight(self, out, into):
        return self.rng.standard_t(4, (out, into)).astype(numpy.float32)


def grid(weight, group, bits, symmetric, dtype, group_of):
    """Scales and zero points [out, groups] of min and max, and codes 0 to 2^bits - 1 [out, in]."""
    groups = int(group_of.max()) + 1
    most = 2**bits - 1
    columns = [weight[:, group_of == g] for g in range(groups)]
    low = numpy.stack([numpy.minimum(of.min(1), 0) for of in columns], 1)
    high = numpy.stack([numpy.maximum(of.max(1), 0) for of in columns], 1)
    if symmetric:
        scale = numpy.maximum(-low, high) / (2 ** (bits - 1) - 1)
    else:
        scale = (high - low) / most
    scale = torch.from_numpy(scale).to(dtype)
    wide = scale.float().numpy()
    zero = numpy.full_like(low, 2 ** (bits - 1)) if symmetric else numpy.clip(numpy.rint(-low / wide), 0, most)
    zero = zero.astype(numpy.int64)
    codes = numpy.rint(weight / wide[:, group_of]) + zero[:, group_of]
    return scale, zero, numpy.clip(codes, 0, most).astype(numpy.int64)


def pack_rows(codes, bits):
    """[n, m] packed along n: [n * bits / 32, m]."""
    per_word = 32 // bits
    assert codes.shape[0] % per_word == 0
    words = numpy.zeros((codes.shape[0] // per_word, codes.shape[1]), numpy.uint32)
    for place in range(per_word):
        words |= codes[place::per_word].astype(numpy.uint32) << numpy.uint32(bits * place)
    return words


def unpack_rows(words, bits):
    per_word = 32 // bits
    fields = [words >> numpy.uint32(bits * place) & numpy.uint32(2**bits - 1) for place in range(per_word)]
    return numpy.stack(fields, 1).reshape(-1, words.shape[1])


def as_tensor(words):
    return torch.from_numpy(words.view(numpy.int32).copy())


def compressed_tensors(name, out, into, bits, group, symmetric, dtype, actorder=None):
    numbers = Numbers(name)
    weight = numbers.weight(out, into)
    order = numpy.arange(into) // (group or into)
    if actorder == "group":
        numbers.rng.shuffle(order)
    scale, zero, _ = grid(weight, group, bits, symmetric, DTYPES[dtype], order)
    args = {"num_bits": bits, "type": "int", "symmetric": symmetric, "actorder": actorder}
    args |= {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    state = {"weight": torch.from_numpy(weight), "weight_scale": scale.float()}
    if not symmetric:
        state["weight_zero_point"] = torch.from_numpy(zero - 2 ** (bits - 1)).to(torch.int8)
    if actorder == "group":
        state["weight_g_idx"] = torch.from_numpy(order.astype(numpy.int32))
    packed = compressor.compress(state, scheme)
    # The scale in the type that the file has; float32 where the library multiplies.
    expected = compressor.decompress(packed, scheme)["weight"]
    assert expected.dtype == torch.float32
    tensors = {f"{MODULE}.{key}": value.contiguous() for key, value in packed.items()}
    tensors[f"{MODULE}.weight_scale"] = scale.contiguous()
    config = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": args, "input_activations": None}},
        "ignore": ["lm_head"],
    }
    return config, tensors, expected


def gptq(name, out, into, bits, group, version, dtype, desc_act=False, symmetric=True, label=None, low=None):
    numbers = Numbers(name)
    weight = numbers.weight(out, into)
    if low is not None:
        # Weights of one sign: zero points of 0, which the subtraction of v1 borrows for.
        weight[:low] = abs(weight[:low])
    order = numpy.arange(into) // (group or into)
    if desc_act:
        numbers.rng.shuffle(order)
    scale, zero, codes = grid(weight, group, bits, symmetric, DTYPES[dtype], order)
    words = pack_rows(numpy.ascontiguousarray(zero), bits).T
    if version == "gptq":
        with numpy.errstate(over="ignore"):
            words = words - numpy.uint32(0x11111111 if bits == 4 else 0x01010101)
    tensors = {
        f"{MODULE}.qweight": as_tensor(pack_rows(codes.T, bits)),
        f"{MODULE}.qzeros": as_tensor(numpy.ascontiguousarray(words)),
        f"{MODULE}.scales": scale.T.contiguous(),
    }
    if desc_act:
        tensors[f"{MODULE}.g_idx"] = torch.from_numpy(order.astype(numpy.int32))
    # Read again by the format's word.
    read = unpack_rows(tensors[f"{MODULE}.qweight"].numpy().view(numpy.uint32), bits).astype(numpy.int64)
    stored = tensors[f"{MODULE}.qzeros"].numpy().view(numpy.uint32)
    if version == "gptq":
        with numpy.errstate(over="ignore"):
            stored = stored + numpy.uint32(0x11111111 if bits == 4 else 0x01010101)
    zeros = unpack_rows(numpy.ascontiguousarray(stored.T), bits).T.astype(numpy.int64)
    assert (read == codes.T).all() and (zeros == zero.T).all()
    scales = tensors[f"{MODULE}.scales"].float().numpy()
    expected = ((read - zeros[order]).astype(numpy.float32) * scales[order]).T
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group or -1,
        "desc_act": desc_act,
        "sym": symmetric,
        "checkpoint_format": label or version,
    }
    return config, tensors, torch.from_numpy(numpy.ascontiguousarray(expected))


def awq(name, out, into, group, dtype, symmetric=False):
    numbers = Numbers(name)
    weight = numbers.weight(out, into)
    order = numpy.arange(into) // group
    scale, zero, codes = grid(weight, group, 4, symmetric, DTYPES[dtype], order)

    def pack(of):  # [rows, out], eight outputs a word
        words = numpy.zeros((of.shape[0], of.shape[1] // 8), numpy.uint32)
        for place in range(8):
            words |= of[:, place::8].astype(numpy.uint32) << numpy.uint32(4 * AWQ_ORDER[place])
        return as_tensor(words)

    tensors = {
        f"{MODULE}.qweight": pack(codes.T),
        f"{MODULE}.scales": scale.T.contiguous(),
    }
    if not symmetric:
        tensors[f"{MODULE}.qzeros"] = pack(zero.T)
    converter = AutoAWQConverter(group_size=group, zero_point=not symmetric)
    converted = converter.process({key: value.clone() for key, value in tensors.items()})
    scheme = converter.create_config().config_groups["config_group_0"]
    state = {key.removeprefix(f"{MODULE}."): value for key, value in converted.items()}
    state["weight_scale"] = state["weight_scale"].float()
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    expected = compressor.decompress(state, scheme)["weight"]
    assert expected.dtype == torch.float32
    config = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": group,
        "zero_point": not symmetric,
        "version": "gemm",
    }
    return config, tensors, expected


def cases():
    ct, g, a = compressed_tensors, gptq, awq
    yield "ct-4-32", ct(1, 8, 64, 4, 32, True, "f16")
    yield "ct-4-asymmetric", ct(2, 12, 64, 4, 16, False, "bf16")
    yield "ct-4-channel-filled", ct(3, 6, 20, 4, None, True, "bf16")
    yield "ct-4-order", ct(4, 8, 64, 4, 16, False, "f16", actorder="group")
    yield "ct-8-32", ct(5, 8, 64, 8, 32, True, "f32")
    yield "ct-8-channel-asymmetric", ct(6, 6, 20, 8, None, False, "f16")
    yield "gptq-4", g(7, 16, 64, 4, 32, "gptq", "f16")
    yield "gptq-4-v2", g(8, 16, 64, 4, 32, "gptq_v2", "bf16", symmetric=False)
    yield "gptq-4-order", g(9, 16, 64, 4, 16, "gptq", "f16", desc_act=True, symmetric=False)
    yield "gptq-4-borrowed", g(10, 16, 64, 4, 32, "gptq", "f16", symmetric=False, low=5)
    yield "gptq-8", g(11, 8, 64, 8, 32, "gptq", "f32")
    yield "gptq-8-channel", g(12, 8, 64, 8, None, "gptq_v2", "f16", symmetric=False)
    yield "awq", a(13, 16, 64, 32, "f16")
    yield "awq-symmetric", a(14, 16, 64, 16, "bf16", symmetric=True)


def main():
    check = "--check" in sys.argv[1:]
    different = []
    for name, (quantization, tensors, expected) in cases():
        folder = FOLDER / name
        files = {f"{MODULE}.weight": expected.contiguous()}
        config = {"model_type": "llama", "quantization_config": quantization}
        text = json.dumps(config, indent=1) + "\n"
        if check:
            same = (folder / "config.json").read_text() == text
            for file, made in (("model", tensors), ("expected", files)):
                found = load_file(folder / f"{file}.safetensors")
                same &= found.keys() == made.keys() and all(torch.equal(found[key], made[key]) for key in made)
            different += [] if same else [name]
            continue
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(text)
        save_file(tensors, folder / "model.safetensors")
        save_file(files, folder / "expected.safetensors")
    assert not different, f"other than those that are committed: {different}"


if __name__ == "__main__":
    main()
