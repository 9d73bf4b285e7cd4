"""Perplexity, and the divergence from a reference, as llama-perplexity counts them: of each
sequence the second half of its predictions."""

import hashlib
import json
import math

import gguf
import numpy as np
from engine import Engine

SAID = ("GGUF.", "general.", "tokenizer.", "qera.")  # metadata that change no logits


def digest(path):
    """Of what decides the logits in a GGUF."""
    reader, of = gguf.GGUFReader(path), hashlib.sha256()
    for name in sorted(reader.fields):
        if not name.startswith(SAID):
            of.update(f"{name} {reader.fields[name].contents()}\n".encode())
    for tensor in sorted(reader.tensors, key=lambda tensor: tensor.name):
        of.update(f"{tensor.name} {tensor.tensor_type.name} {tensor.shape.tolist()}\n".encode())
        of.update(np.ascontiguousarray(tensor.data).view(np.uint8))
    return of.hexdigest()


def log_probabilities(logits):
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True, dtype=np.float64)).astype(np.float32)


class Judge:
    """Judges models on `sequences` against the model `reference`; what is finished is kept in
    `folder` and not computed again for the same bytes."""

    def __init__(self, folder, reference, sequences):
        self.folder, self.reference, self.sequences = folder, reference, np.asarray(sequences, np.int32)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.half = self.sequences.shape[1] // 2
        tokens = hashlib.sha256(self.sequences.tobytes()).hexdigest()
        self.of = {"tokens": tokens, "reference": digest(reference)}

    def _predicted(self, engine, sequence):
        """Log probabilities of what follows each token of the second half but the last."""
        return log_probabilities(engine.logits(sequence, self.half)[:-1])

    def _referred(self, number):
        path = self.folder / f"reference-{number}.npy"
        stamp = path.with_suffix(".json")
        if not stamp.exists() or json.loads(stamp.read_text()) != self.of:
            with Engine(self.reference, sequence=self.sequences.shape[1]) as engine:
                np.save(path, self._predicted(engine, self.sequences[number]))
            stamp.write_text(json.dumps(self.of))
        return np.load(path, mmap_mode="r")

    def _judged(self, number, found):
        """(mean loss, mean divergence) of one sequence."""
        reference, follow = self._referred(number), self.sequences[number][self.half + 1 :]
        loss = -found[np.arange(len(follow)), follow].mean(dtype=np.float64)
        divergence = (np.exp(reference) * (reference - found)).sum(-1, dtype=np.float64).mean()
        return float(loss), float(divergence)

    def judge(self, name, model, adapter=None, count=None):
        """{"ppl": of the text, "kld": mean divergence from the reference in nats}; on the first
        `count` sequences."""
        path, sequences = self.folder / f"{name}.json", self.sequences[:count]
        of = self.of | {"model": digest(model), "adapter": digest(adapter) if adapter else None, "of": len(sequences)}
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept.get("of") != of:
            with Engine(model, adapter, self.sequences.shape[1]) as engine:
                found = (self._predicted(engine, tokens) for tokens in sequences)
                judged = [self._judged(number, of_it) for number, of_it in enumerate(found)]
            kept = {"of": of, "loss": [loss for loss, _ in judged], "kld": [kld for _, kld in judged]}
            path.write_text(json.dumps(kept))
            print(f"judged {name}", flush=True)
        return {"ppl": math.exp(np.mean(kept["loss"])), "kld": float(np.mean(kept["kld"]))}

    def full(self):
        """The reference's own perplexity."""
        losses = [self._judged(number, self._referred(number))[0] for number in range(len(self.sequences))]
        return math.exp(np.mean(losses))
