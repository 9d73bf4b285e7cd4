"""MXINT4 in compressed-tensors' pack-quantized form, from the definitions and apart from the
daemon's Rust."""

import json
import shutil

import numpy
import torch
from safetensors.torch import load_file, save_file

BITS, GROUP = 4, 32
CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "kv_cache_scheme": None,
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": BITS,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": GROUP,
                "dynamic": False,
                "actorder": None,
            },
            "input_activations": None,
            "output_activations": None,
        }
    },
}


def codes_and_scales(weight):
    """Of a weight [out, in]: codes in -7..7, and the power of two of each group."""
    blocks = weight.double().numpy().reshape(weight.shape[0], -1, GROUP)
    largest = numpy.abs(blocks).max(axis=2, keepdims=True)
    exponent = numpy.where(largest > 0, numpy.frexp(largest)[1] - 1, -126) - (BITS - 2)
    codes = numpy.clip(numpy.rint(blocks / numpy.ldexp(1.0, exponent)), -7, 7)
    return codes.reshape(weight.shape).astype(numpy.int64), numpy.ldexp(1.0, exponent)[..., 0]


def pack(weight):
    """The three tensors in the place of a weight."""
    codes, scales = codes_and_scales(weight)
    eights = (codes + 8).reshape(weight.shape[0], -1, 8)
    words = (eights << (4 * numpy.arange(8))).sum(axis=2).astype(numpy.uint32).view(numpy.int32)
    return {
        "weight_packed": torch.from_numpy(words),
        "weight_scale": torch.from_numpy(scales).to(torch.bfloat16),
        "weight_shape": torch.tensor(weight.shape, dtype=torch.int64),
    }


def is_linear(name):
    return name.endswith("_proj.weight")


def packed_tensors(checkpoint):
    tensors = {}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        if is_linear(name):
            tensors |= {name.removesuffix("weight") + part: packed for part, packed in pack(tensor).items()}
        else:
            tensors[name] = tensor
    return tensors
