"""What is published loads unmodified, and means what it says: W~ + C, with the W~ of the
definition."""

import json

import mxint
import numpy
import peft
import torch
from daemon import PREFIX, correction, manifest
from fixture import ACTIVATIONS, BLOCK_SIZE, evaluation_tokens, linear_names, load_model, logits
from safetensors.torch import load_file

BITS = 3
RANK = 8


SAME_INPUT = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}


def site_of(name):
    """The layer under whose name the input of layer `name` was recorded."""
    block, _, leaf = name.rpartition(".")
    return f"{block}.{SAME_INPUT.get(leaf, leaf)}"


def recorded_rows():
    """All rows of fixtures/activations in f64, [rows, in_features] by key."""
    shards = [load_file(path) for path in sorted(ACTIVATIONS.glob("*.safetensors"))]
    return {key: torch.cat([shard[key].flatten(0, 1) for shard in shards]).double() for key in shards[0]}


class AdapterTests:
    def __init__(self, daemon):
        options = ("--method", "exact", "--quantizer", f"mxint{BITS}", "--block-size", BLOCK_SIZE, "--rank", RANK)
        self.out = daemon.once(*options, "--emit-base")
        self.adapter = load_file(self.out / "current/adapter_model.safetensors")
        self.tokens = evaluation_tokens()[:16]

    def test_quantizer_known_answers(self):
        mxint.check_known()

    def test_base_is_the_quantized_checkpoint(self):
        original, base = load_model().state_dict(), load_model(self.out / "base").state_dict()
        assert original.keys() == base.keys()
        quantized = {f"{name}.weight" for name in linear_names(load_model())}
        assert len(quantized) == 28, f"{len(quantized)} linear layers"
        for name, weight in base.items():
            expected = original[name].numpy()
            if name in quantized:
                expected = mxint.quantize(expected, BITS, BLOCK_SIZE)
            assert numpy.array_equal(weight.numpy(), expected), f"{name} differs from its definition"

    def test_manifest_states_the_true_errors(self):
        """f = tr(R P P^T), the mean of |x P|^2 over the rows, computed here from the rows and the
        published files."""
        original, base = load_model().state_dict(), load_model(self.out / "base").state_dict()
        rows = recorded_rows()
        layers = manifest(self.out)["layers"]
        assert {layer["name"] for layer in layers} == set(linear_names(load_model()))
        for layer in layers:
            name, x = layer["name"], rows[site_of(layer["name"])]
            assert layer["rows"] == len(x) and layer["status"] == "solved", layer
            error = original[f"{name}.weight"].double() - base[f"{name}.weight"].double()
            left = error - correction(self.adapter, name)
            for stated, of in ((layer["error"]["without"], error), (layer["error"]["rounded"], left)):
                true = (x @ of.T).square().sum(1).mean().item()
                assert abs(stated - true) <= 1e-4 * true, f"{name}: the manifest says {stated}, it is {true}"
            assert layer["error"]["rounded"] < layer["error"]["without"], layer

    def test_base_is_ordinary_bf16(self):
        weights = load_file(self.out / "base/model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}

    def test_config_gives_scaling_one(self):
        config = json.loads((self.out / "current/adapter_config.json").read_text())
        assert config["peft_type"] == "LORA" and config["r"] == config["lora_alpha"] == RANK, config
        names = linear_names(load_model())
        expected = {f"{PREFIX}{name}.lora_{side}.weight" for name in names for side in "AB"}
        assert self.adapter.keys() == expected
        for key, tensor in self.adapter.items():
            assert tensor.shape[0 if ".lora_A." in key else 1] == RANK, f"{key} {tuple(tensor.shape)}"

    def test_peft_logits_are_those_of_base_plus_correction(self):
        base = load_model(self.out / "base")
        plain = logits(base, self.tokens)
        loaded = peft.PeftModel.from_pretrained(load_model(self.out / "base"), self.out / "current").eval()
        published = logits(loaded, self.tokens)
        for name in linear_names(base):
            weight = base.get_submodule(name).weight
            weight.data = (weight.data.double() + correction(self.adapter, name)).float()
        expected = logits(base, self.tokens)
        difference = ((published - expected).norm() / expected.norm()).item()
        assert difference < 1e-5, f"relative difference of the logits {difference:.2e}"
        effect = ((plain - expected).norm() / expected.norm()).item()
        assert effect > 1e-3, f"the adapter changes nothing: {effect:.2e}"
