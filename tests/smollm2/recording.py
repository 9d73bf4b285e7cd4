"""Sequences of 1,024 tokens of calibration.txt, recorded by the tap."""

import json
import pathlib

import hugging_face
import torch
from source import digest

SEQUENCES = 32


def record(source, folder, count=SEQUENCES):
    """A shard for each of the first `count` sequences, in `folder`. Goes on after the last one that
    is there."""
    made_by = {
        "model": digest(source.model / "model.safetensors"),
        "tap": digest(pathlib.Path(hugging_face.__file__)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "made_by.json"
    if not stamp.is_file():
        stamp.write_text(json.dumps(made_by))
    if json.loads(stamp.read_text()) != made_by:
        raise SystemExit(f"run.sh: {folder} was recorded from another model or by another tap; remove it")
    done = len(list(folder.glob("*.safetensors")))
    if done == count:
        return
    model = source.load()
    sequences = source.sequences("calibration.txt", count)[done:]
    with torch.no_grad(), hugging_face.Tap(model, folder, dtype="bf16", strict=True):
        for number, sequence in enumerate(sequences, done + 1):
            model(input_ids=sequence[None])
            print(f"recorded sequence {number} of {count}", flush=True)
