"""The fixture model, and how far a changed one is from it."""

import pathlib

import numpy
import safetensors.numpy
import torch
import transformers
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "fixtures/model"
ACTIVATIONS = ROOT / "fixtures/activations"
CALIBRATION = ROOT / "fixtures/calibration.safetensors"
EVALUATION = ROOT / "fixtures/evaluation.safetensors"
BLOCK_SIZE = 32


def load_model(folder=MODEL):
    """In float32, so that what is compared is the weights and not bf16 arithmetic."""
    return transformers.LlamaForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()


def linear_names(model):
    """The layers that the daemon quantizes: every linear but lm_head, whose weight is the
    embedding's."""
    return [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]


def calibration_tokens():
    tokens = safetensors.numpy.load_file(CALIBRATION)["tokens"]  # U16, which torch 1.13 lacks
    return torch.from_numpy(tokens.astype("int64"))


def evaluation_tokens():
    return load_file(EVALUATION)["tokens"].long()


def logits(model, tokens):
    with torch.no_grad():
        return torch.cat([model(input_ids=part).logits for part in tokens.split(16)])


def divergence(reference, changed):
    """Mean over the tokens of KL(reference || changed) in nats, of the two models' next-token
    distributions."""
    total = 0.0
    for p, q in zip(reference, changed):
        p, q = p.double().log_softmax(-1), q.double().log_softmax(-1)
        total += (p.exp() * (p - q)).sum(-1).mean().item()
    return total / len(reference)


def perplexity(changed, tokens):
    loss = 0.0
    for row, target in zip(changed, tokens):
        loss += torch.nn.functional.cross_entropy(row[:-1].double(), target[1:]).item()
    return float(numpy.exp(loss / len(tokens)))
