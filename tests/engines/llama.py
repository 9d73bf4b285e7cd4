"""A Llama in numpy, in f64 and from its definition, and its weights in the two forms that engines
load."""

import json
import shutil

import gguf
import numpy as np
from converted import in_pairs, tensor_of
from safetensors.numpy import save_file

LINEAR = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
LINEAR += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


def read_safetensors(path):
    """Name -> array in f32, of F32 and BF16."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data, tensors = json.loads(raw[8 : 8 + length]), raw[8 + length :], {}
    for name, tensor in header.items():
        if name != "__metadata__":
            of = {"F32": np.float32, "BF16": np.uint16}[tensor["dtype"]]
            array = np.frombuffer(data[slice(*tensor["data_offsets"])], of).reshape(tensor["shape"])
            tensors[name] = (array.astype(np.uint32) << 16).view(np.float32) if of == np.uint16 else array
    return tensors


class Llama:
    """`weights`: name -> array as `[out, in]`, by Transformers' names; the head is the
    embedding."""

    def __init__(self, config, weights):
        self.config, self.weights = config, weights
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.size = config["hidden_size"] // self.heads
        blocks = range(config["num_hidden_layers"])
        self.layers = [f"model.layers.{block}.{name}" for block in blocks for name in LINEAR]

    @classmethod
    def of_folder(cls, folder):
        config = json.loads((folder / "config.json").read_text())
        assert config["tie_word_embeddings"] and config["model_type"] == "llama" and not config["rope_scaling"]
        return cls(config, read_safetensors(folder / "model.safetensors"))

    def with_linear(self, changed):
        """The same model with other linear layers: name -> weight."""
        return Llama(self.config, self.weights | {f"{name}.weight": weight for name, weight in changed.items()})

    def _normed(self, name, x):
        mean = np.square(x).mean(-1, keepdims=True)
        return x / np.sqrt(mean + self.config["rms_norm_eps"]) * self.weights[f"{name}.weight"]

    def _linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].astype(np.float64).T

    def _rotated(self, x):
        """Position p turns the pair of channels (i, i + half) of a head by p / theta^(i / half)."""
        half = self.size // 2
        angle = np.arange(len(x))[:, None, None] / self.config["rope_theta"] ** (np.arange(half) / half)
        one, other = x[..., :half], x[..., half:]
        turned = one * np.cos(angle) - other * np.sin(angle), other * np.cos(angle) + one * np.sin(angle)
        return np.concatenate(turned, -1)

    def _attention(self, block, x):
        q, k, v = (
            self._linear(f"{block}.self_attn.{name}_proj", x).reshape(len(x), -1, self.size) for name in "qkv"
        )
        q, k = self._rotated(q), self._rotated(k)
        k, v = (np.repeat(of, self.heads // self.kv_heads, 1) for of in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(self.size)
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", shares / shares.sum(-1, keepdims=True), v)
        return self._linear(f"{block}.self_attn.o_proj", mixed.reshape(len(x), -1))

    def logits(self, tokens):
        """[tokens, vocabulary] of one sequence."""
        x = self.weights["model.embed_tokens.weight"][tokens].astype(np.float64)
        for number in range(self.config["num_hidden_layers"]):
            block = f"model.layers.{number}"
            x = x + self._attention(block, self._normed(f"{block}.input_layernorm", x))
            y = self._normed(f"{block}.post_attention_layernorm", x)
            gate, up = (self._linear(f"{block}.mlp.{name}_proj", y) for name in ("gate", "up"))
            x = x + self._linear(f"{block}.mlp.down_proj", gate / (1 + np.exp(-gate)) * up)
        return self._linear("model.embed_tokens", self._normed("model.norm", x))

    def write_checkpoint(self, folder):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config | {"torch_dtype": "float32"}))
        tensors = {name: np.ascontiguousarray(array, np.float32) for name, array in self.weights.items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder

    def write_gguf(self, path, stored=lambda name, weight: (gguf.GGMLQuantizationType.F32, weight)):
        """`stored`: the type and the bytes of a linear layer's weight, by its GGUF's name."""
        config, writer = self.config, gguf.GGUFWriter(path, "llama")
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.kv_heads)
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_freq_base(config["rope_theta"])
        writer.add_rope_dimension_count(self.size)
        writer.add_vocab_size(config["vocab_size"])
        writer.add_tokenizer_model("none")
        turned = {"q_proj": self.heads, "k_proj": self.kv_heads}
        outer = {"model.embed_tokens": "token_embd.weight", "model.norm": "output_norm.weight"}
        for key, array in self.weights.items():
            module = key.removesuffix(".weight")
            name, leaf = outer.get(module) or tensor_of(module), module.rpartition(".")[2]
            array = in_pairs(array, turned[leaf]) if leaf in turned else array
            kind, data = stored(name, array) if module in self.layers else (gguf.GGMLQuantizationType.F32, array)
            writer.add_tensor(name, np.ascontiguousarray(data), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path
