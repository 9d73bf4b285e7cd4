"""qera-daemon takes the shards: every layer of a small Llama is corrected from them."""

import torch
from daemon import manifest
from published import OPTIONS
from served import Served
from stand_ins import FirstRunner, Model, configuration, new
from transformers import LlamaConfig, LlamaForCausalLM


class DaemonTests:
    def __init__(self, daemon, work):
        self.daemon, self.checkpoint = daemon, work / "checkpoint"
        torch.manual_seed(3)
        sizes = {"hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 2, "vocab_size": 160}
        config = LlamaConfig(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False, **sizes)
        LlamaForCausalLM(config).save_pretrained(self.checkpoint, safe_serialization=True)
        self.shards = work / "shards"
        served = Served(self.shards, FirstRunner, Model(wrapped=True), configuration(self.checkpoint))
        keys = [f"r{number}" for number in range(8)]
        served.step({key: 120 for key in keys}, *map(new, keys))
        for _ in range(8):
            served.step({key: 1 for key in keys})
        served.end(*keys)
        served.close()

    def test_every_layer_is_corrected(self):
        out = self.daemon.once(*OPTIONS, activations=self.shards, checkpoint=self.checkpoint)
        solved = {layer["name"] for layer in manifest(out)["layers"] if layer["status"] == "solved"}
        model = LlamaForCausalLM.from_pretrained(self.checkpoint)
        linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
        names = set(linears) - {"lm_head"}
        assert solved == names and len(names) == 14, solved ^ names
        assert manifest(out)["inputs"]["full_precision_model"] is True
        self.daemon.verify(out)
