"""The unpacked base with the adapter in f32: vLLM computes what Transformers does with W~ + A B."""

import math

import torch
import transformers
from safetensors.torch import load_file

AGREE = 1e-4  # relative
PREFIX = "base_model.model."


def corrected_model(base, adapter):
    """The class of Transformers with A B added to each weight."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    tensors = load_file(adapter / "adapter_model.safetensors")
    for key, a in tensors.items():
        if key.endswith(".lora_A.weight"):
            b = tensors[key.replace("lora_A", "lora_B")]
            weight = model.get_submodule(key.removeprefix(PREFIX).removesuffix(".lora_A.weight")).weight
            weight.data += (b.double() @ a.double()).float()
    return model


def perplexity(model, sequences):
    losses = []
    for sequence in sequences:
        with torch.no_grad():
            logits = model(input_ids=sequence[None]).logits[0]
        losses.append(torch.nn.functional.cross_entropy(logits[:-1].double(), sequence[1:]).item())
    return math.exp(sum(losses) / len(losses))


class FloatTests:
    def __init__(self, stage):
        judged, batch = stage.material.judged, stage.batch
        with stage.server("float-server", batch.base, dtype="float32") as server:
            server.wait_until_ready().ask.load("batch", batch.adapter)
            self.served = {name: server.ask.perplexity(name, judged) for name in ("base", "batch")}
        self.expected = {"batch": perplexity(corrected_model(batch.base, batch.adapter), judged)}
        base = transformers.AutoModelForCausalLM.from_pretrained(batch.base, dtype=torch.float32).eval()
        self.expected["base"] = perplexity(base, judged)

    def test_perplexity_is_that_of_transformers(self):
        for name, expected in self.expected.items():
            found = self.served[name]
            assert abs(found / expected - 1) < AGREE, f"{name}: vLLM {found}, Transformers {expected}"

    def test_the_adapter_is_used(self):
        assert self.served["base"] > 1.2 * self.served["batch"], self.served
