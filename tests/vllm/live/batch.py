"""The batch job that live runs are measured by: Transformers records the full-precision model on the prompts of the
live run, the daemon solves once, and writes the base in both forms."""

import hashlib
import json
import shutil

import torch
from material import ROOT
from processes import run
from readme import define_hook, hook_source
from source import digest

QUANTIZER = ("--quantizer", "mxint4", "--rank", 32)


def record(material, folder):
    """A shard for each prompt, by the README's hook; made once for a model and a hook."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made_by = [digest(material.model / "model.safetensors"), hashlib.sha256(hook_source(readme).encode()).hexdigest()]
    stamp = folder.with_suffix(".json")
    if stamp.is_file() and json.loads(stamp.read_text()) == made_by:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = material.source.load()
    define_hook(readme)(model, str(folder))
    for prompt in material.prompts:
        with torch.no_grad():
            model(input_ids=prompt[None])
    stamp.write_text(json.dumps(made_by))


class Batch:
    """`out` of the batch job; another binary does it again."""

    def __init__(self, daemon, material, work):
        activations, self.out = work / "batch-activations", work / "batch"
        record(material, activations)
        stamp, made_by = work / "batch.json", [digest(daemon), (work / "batch-activations.json").read_text()]
        if not (stamp.is_file() and json.loads(stamp.read_text()) == made_by):
            shutil.rmtree(self.out, ignore_errors=True)
            watched = ["--watch", activations, "--checkpoint", material.model, "--out", self.out]
            run([daemon, *watched, "--once", *QUANTIZER, "--emit-base=hf,compressed-tensors"])
            shutil.rmtree(self.out / "state")  # as large as all statistics, and not asked for again
            stamp.write_text(json.dumps(made_by))
        self.base, self.packed = self.out / "base", self.out / "base-compressed-tensors"
        self.adapter = (self.out / "current").resolve()
