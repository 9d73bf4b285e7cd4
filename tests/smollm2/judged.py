"""Perplexity over the first sequences of evaluation.txt: exp of the mean cross-entropy of their
predictions."""

import contextlib
import json
import math

import torch

SEQUENCES = 10


def losses(model, sequences):
    """Mean cross-entropy of each sequence, in nats."""
    results = []
    for sequence in sequences:
        with torch.no_grad():
            logits = model(input_ids=sequence[None]).logits[0]
        results.append(torch.nn.functional.cross_entropy(logits[:-1].double(), sequence[1:]).item())
    return results


def perplexity(losses):
    return math.exp(sum(losses) / len(losses))


def judge(file, of, load, sequences):
    """{"corrected": perplexity, "base": perplexity}, the second only of a model with an adapter.
    Taken from `file` where that is of the same bytes."""
    kept = json.loads(file.read_text()) if file.is_file() else {}
    if kept.get("of") != of:
        model = load()
        kept = {"of": of, "corrected": losses(model, sequences)}
        with contextlib.ExitStack() as stack:
            if hasattr(model, "disable_adapter"):
                stack.enter_context(model.disable_adapter())
                kept["base"] = losses(model, sequences)
        file.write_text(json.dumps(kept))
    return {what: perplexity(kept[what]) for what in ("corrected", "base") if what in kept}
