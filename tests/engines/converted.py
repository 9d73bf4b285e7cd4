"""A PEFT adapter as a GGUF adapter, converted by the definitions of both, and independent of the
daemon's Rust."""

import gguf
import numpy as np
from smollm2 import MODULES

PREFIX = "base_model.model."
TENSORS = {module: tensor for tensor, module in MODULES.items()}


def tensor_of(module):
    """What a GGUF calls the weight of a Llama's module."""
    _, _, block, name = module.split(".", 3)
    return f"blk.{block}.{TENSORS[name]}.weight"


def in_pairs(matrix, heads):
    """Rows in llama.cpp's order: (head, side, pair) of Transformers is (head, pair, side) there."""
    out, width = matrix.shape
    return matrix.reshape(heads, 2, out // heads // 2, width).swapaxes(1, 2).reshape(out, width)


def factors(tensors, heads):
    """Tensor -> (A [rank, in], B [out, rank]) of a PEFT adapter; `heads`: of the tensors whose rows
    llama.cpp turns."""
    converted = {}
    for key in tensors:
        module, found, _ = key.removeprefix(PREFIX).partition(".lora_A.")
        if found:
            name, b = tensor_of(module), tensors[f"{PREFIX}{module}.lora_B.weight"]
            turned = heads.get(name.split(".")[2])
            converted[name] = (tensors[key], in_pairs(b, turned) if turned else b)
    return converted


def read_adapter(path):
    """Tensor -> (A, B) of a GGUF adapter as f32, and its metadata."""
    reader = gguf.GGUFReader(path)
    arrays = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    names = {name.rpartition(".")[0] for name in arrays}
    assert len(arrays) == 2 * len(names), sorted(arrays)
    read = {name: (arrays[f"{name}.lora_a"], arrays[f"{name}.lora_b"]) for name in names}
    return read, {field.name: field.contents() for field in reader.fields.values()}


def write_adapter(path, architecture, converted):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 0.0)
    for name, (a, b) in converted.items():
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
