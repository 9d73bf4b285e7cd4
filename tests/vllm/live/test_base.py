"""The base as compressed-tensors, by a packer of the test's own and by the library that defines the
form."""

import json

import packing
import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationScheme
from safetensors.torch import load_file

PARTS = ("weight_packed", "weight_scale", "weight_shape")


class BaseTests:
    def __init__(self, stage):
        self.stage = stage
        self.checkpoint = load_file(stage.material.model / "model.safetensors")
        self.packed = {}
        for file in sorted(stage.batch.packed.glob("*.safetensors")):
            self.packed |= load_file(file)
        self.modules = [name.removesuffix(".weight") for name in self.checkpoint if packing.is_linear(name)]

    def test_tensors_and_shapes_are_those_of_the_form(self):
        expected = packing.packed_tensors(self.stage.material.model)
        assert expected.keys() == self.packed.keys(), sorted(expected.keys() ^ self.packed.keys())
        for name, tensor in expected.items():
            found = self.packed[name]
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), f"{name}: {found.dtype} {found.shape}"
            if not name.endswith("weight_scale"):  # of a group of zeros it says nothing
                assert torch.equal(found, tensor), f"{name} differs"

    def test_the_library_reads_w_tilde(self):
        base = load_file(self.stage.batch.base / "model.safetensors")
        config = json.loads((self.stage.batch.packed / "config.json").read_text())["quantization_config"]
        (group,) = config["config_groups"].values()
        scheme = QuantizationScheme(**group)
        for module in self.modules:
            parts = {part: self.packed[f"{module}.{part}"] for part in PARTS}
            read = PackedQuantizationCompressor.decompress(parts, scheme)["weight"]
            assert torch.equal(read.double(), base[f"{module}.weight"].double()), module

    def test_config_is_what_was_served(self):
        config = json.loads((self.stage.batch.packed / "config.json").read_text())
        found = config.pop("quantization_config")
        assert config == json.loads((self.stage.material.model / "config.json").read_text())
        for key, value in packing.CONFIG.items():
            if key not in ("config_groups", "ignore"):
                assert found.get(key) == value, f"{key}: {found.get(key)}"
        assert "lm_head" in found["ignore"], found["ignore"]
        ((_, group),) = found["config_groups"].items()
        (expected,) = packing.CONFIG["config_groups"].values()
        assert expected["weights"].items() <= group["weights"].items(), group
        assert group["targets"] == ["Linear"], group

    def test_the_adapter_names_the_packed_base(self):
        config = json.loads((self.stage.batch.adapter / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(self.stage.batch.packed), config["base_model_name_or_path"]
