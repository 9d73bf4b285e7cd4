"""32 x 1,024 tokens of calibration.txt, recorded by the README's hook."""

import hashlib
import json

import torch
from fixture import ROOT
from readme import define_hook, hook_source
from source import digest

SEQUENCES = 32


def record(source, folder):
    """A shard for each sequence, in `folder`. Goes on after the last one that is there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    made_by = {
        "model": digest(source.model / "model.safetensors"),
        "hook": hashlib.sha256(hook_source(readme).encode()).hexdigest(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "made_by.json"
    if not stamp.is_file():
        stamp.write_text(json.dumps(made_by))
    if json.loads(stamp.read_text()) != made_by:
        raise SystemExit(f"run.sh: {folder} was recorded from another model or by another hook; remove it")
    done = len(list(folder.glob("*.safetensors")))
    if done == SEQUENCES:
        return
    model = source.load()
    define_hook(readme)(model, str(folder))
    for number, sequence in enumerate(source.sequences("calibration.txt", SEQUENCES)[done:], done + 1):
        with torch.no_grad():
            model(input_ids=sequence[None])
        print(f"recorded sequence {number} of {SEQUENCES}", flush=True)
