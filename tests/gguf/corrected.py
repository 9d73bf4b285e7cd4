"""Runs of the daemon with `--quantized`, and what they published."""

import json
import subprocess

import numpy as np
from safetensors.numpy import load_file

PREFIX = "base_model.model."


class Run:
    """The daemon's end, and what it said."""

    def __init__(self, binary, *options):
        self.command = [str(part) for part in (binary, *options)]
        done = subprocess.run(self.command, capture_output=True, text=True)
        self.code, self.said = done.returncode, done.stderr + done.stdout

    def expect(self, code):
        assert self.code == code, f"{' '.join(self.command)}\nexit code {self.code}, not {code}\n{self.said[-3000:]}"
        return self


class Corrected:
    """What an output folder holds."""

    def __init__(self, out):
        self.out = out
        self.manifest = json.loads((out / "current/qera_manifest.json").read_text())
        self.layers = {layer["name"]: layer for layer in self.manifest["layers"]}
        self.tensors = load_file(out / "current/adapter_model.safetensors")
        config = json.loads((out / "current/adapter_config.json").read_text())
        assert config.get("rank_pattern") == config.get("alpha_pattern"), config  # then the scale is one for all
        self.scale = config["lora_alpha"] / config["r"]

    def correction(self, module):
        """What the adapter adds to the weight, [out, in]."""
        served = PREFIX + self.layers[module]["served_as"]
        a, b = (self.tensors[f"{served}.lora_{side}.weight"].astype(np.float64) for side in "AB")
        return self.scale * (b @ a)
