"""Makes vectors.safetensors: weights, and what the library compressed-tensors packs them as.

    python3 -m venv V && V/bin/pip install torch==2.13.0 compressed-tensors==0.20.1 safetensors
    V/bin/python tests/packed_base/make_vectors.py tests/packed_base/vectors.safetensors

The scales and zero points are by qera's definitions (`qera-core/src/quantize/int/mod.rs`,
`tests/peft/mxint.py`), written here once more; codes, words, shapes and the way back are the
library's. W of an MXINT case lies on its grid, because the library's codes reach down to -2^(b-1)
and MXINT's do not. For each case NAME: NAME.weight, the tensors as they are to be written, and
NAME.decompressed, the library's own reading of them.
"""

import pathlib
import sys

import numpy
import torch
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "peft"))
import mxint

OUT, IN = 32, 128
SCALES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
# Name, bits, block size, type of scales (none for MXINT), zero points.
CASES = (
    ("mxint4", 4, 32, None, False),
    ("mxint4-64", 4, 64, None, False),
    ("mxint8", 8, 32, None, False),
    ("int4", 4, 32, "f16", False),
    ("int4-64-bf16", 4, 64, "bf16", False),
    ("int4-f32", 4, 32, "f32", False),
    ("int8", 8, 32, "f16", False),
    ("int4-zero-points", 4, 32, "f16", True),
)


def weight(seed):
    """Blocks of many sizes, one of zeros, one on one side of 0."""
    values = numpy.random.default_rng(seed).normal(size=(OUT, IN)).astype(numpy.float32)
    values *= numpy.float32(2.0) ** numpy.random.default_rng(seed + 1).integers(-9, 3, size=(OUT, 1)).astype(numpy.float32)
    values[3, :64] = 0.0
    values[5, 64:] = numpy.abs(values[5, 64:]) + numpy.float32(0.01)
    return values


def mxint_scales(values, bits, block):
    """2^(e - (bits - 2)); of a block of zeros what qera takes: e = -94."""
    largest = numpy.abs(values.reshape(OUT, -1, block)).max(axis=2)
    exponent = numpy.where(largest > 0, numpy.frexp(largest)[1] - 1, -94)
    return torch.tensor(numpy.ldexp(1.0, exponent - (bits - 2))).to(torch.bfloat16), None


def int_scales(values, bits, block, dtype, zero_points):
    blocks = values.reshape(OUT, -1, block).astype(numpy.float64)
    low, high = numpy.minimum(blocks.min(axis=2), 0.0), numpy.maximum(blocks.max(axis=2), 0.0)
    span = high - low if zero_points else 2.0 * numpy.maximum(high, -low)
    wanted = torch.tensor((span / (2**bits - 1)).astype(numpy.float32)).to(dtype)
    least = 2.0**-24 if dtype is torch.float16 else 2.0**-100
    scales = torch.clamp(wanted, min=least)
    if not zero_points:
        return scales, None
    points = numpy.clip(numpy.rint(-low / scales.double().numpy()), 0, 2**bits - 1)
    # The library counts from -2^(b-1).
    return scales, torch.tensor(points - 2 ** (bits - 1)).to(torch.int8)


def main():
    tensors = {}
    for seed, (name, bits, block, scale_dtype, zero_points) in enumerate(CASES):
        values = weight(10 * seed)
        if scale_dtype is None:
            values = mxint.quantize(values, bits, block).astype(numpy.float32)
            scales, points = mxint_scales(values, bits, block)
        else:
            scales, points = int_scales(values, bits, block, SCALES[scale_dtype], zero_points)
        args = QuantizationArgs(num_bits=bits, type="int", symmetric=not zero_points, strategy="group", group_size=block)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        # In f32: the library multiplies in the scales' type otherwise, when it rounds to codes.
        state = {"weight": torch.tensor(values), "weight_scale": scales.float()}
        if points is not None:
            state["weight_zero_point"] = points
        packed = PackedQuantizationCompressor.compress(state, scheme)
        packed["weight_scale"] = scales
        back = PackedQuantizationCompressor.decompress(packed, scheme)["weight"]
        assert back.dtype is scales.dtype
        tensors[f"{name}.weight"] = torch.tensor(values)
        tensors[f"{name}.decompressed"] = back.float()
        tensors |= {f"{name}.{part}": tensor.contiguous() for part, tensor in packed.items()}
    save_file(tensors, sys.argv[1])


if __name__ == "__main__":
    main()
