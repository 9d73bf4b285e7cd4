"""Perplexity, and the divergence from a reference, as llama-perplexity counts them: of each sequence the second half of
its predictions."""

import hashlib
import json
import math

import numpy as np
from engine import Engine


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def log_probabilities(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)


class Judge:
    """Judges models on `sequences` against the model `reference`; what is finished is kept in `folder` and not computed
    again for the same bytes."""

    def __init__(self, folder, reference, sequences):
        self.folder, self.reference, self.sequences = folder, reference, np.asarray(sequences, np.int32)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.half = self.sequences.shape[1] // 2
        tokens = hashlib.sha256(self.sequences.tobytes()).hexdigest()
        self.of = {"tokens": tokens, "reference": digest(reference)}

    def _predicted(self, engine, sequence):
        """Log probabilities of what follows each token of the second half but the last."""
        return log_probabilities(engine.logits(sequence)[self.half : -1])

    def _referred(self, number):
        path = self.folder / f"reference-{number}.npy"
        stamp = path.with_suffix(".json")
        if not stamp.exists() or json.loads(stamp.read_text()) != self.of:
            with Engine(self.reference, sequence=self.sequences.shape[1]) as engine:
                np.save(path, self._predicted(engine, self.sequences[number]))
            stamp.write_text(json.dumps(self.of))
        return np.load(path, mmap_mode="r")

    def judge(self, name, model, adapter=None):
        """{"ppl": of the text, "kld": mean divergence from the reference in nats}"""
        path = self.folder / f"{name}.json"
        of = self.of | {"model": digest(model), "adapter": digest(adapter) if adapter else None}
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept.get("of") != of:
            kept = {"of": of, "loss": [], "kld": []}
            with Engine(model, adapter, self.sequences.shape[1]) as engine:
                for number, sequence in enumerate(self.sequences):
                    found, reference = self._predicted(engine, sequence), self._referred(number)
                    follow = sequence[self.half + 1 :]
                    kept["loss"].append(float(-found[np.arange(len(follow)), follow].mean(dtype=np.float64)))
                    divergence = (np.exp(reference) * (reference - found)).sum(-1, dtype=np.float64)
                    kept["kld"].append(float(divergence.mean()))
            path.write_text(json.dumps(kept))
        return {"ppl": math.exp(np.mean(kept["loss"])), "kld": float(np.mean(kept["kld"]))}
