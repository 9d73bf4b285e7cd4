"""The batch job that live runs are measured by: Transformers records the full-precision model on
the prompts of the live run, the daemon solves once, and writes the base in both forms."""

import json
import pathlib
import shutil

import hugging_face
import torch
from processes import run
from source import digest

# Shrinkage is given, because to choose it takes half of a solve, and the live run solves often.
QUANTIZER = ("--quantizer", "mxint4", "--rank", 32, "--shrinkage", 0.5)


def record(material, folder):
    """A shard for each prompt, by the tap for Transformers; made once for a model and a tap."""
    made_by = [digest(material.model / "model.safetensors"), digest(pathlib.Path(hugging_face.__file__))]
    stamp = folder.with_suffix(".json")
    if stamp.is_file() and json.loads(stamp.read_text()) == made_by:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = material.source.load()
    with torch.no_grad(), hugging_face.Tap(model, folder, dtype="bf16", strict=True):
        for prompt in material.prompts:
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
