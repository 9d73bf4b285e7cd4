"""Logits of a checkpoint with an adapter of PEFT over it: `with_peft.py MODEL ADAPTER TOKENS.npy
LOGITS.npy`."""

import sys

import numpy
import peft
import torch
import transformers

model, adapter, tokens, logits = sys.argv[1:]
torch.set_num_threads(2)
base = transformers.AutoModelForCausalLM.from_pretrained(model, torch_dtype=torch.float32)
loaded = peft.PeftModel.from_pretrained(base, adapter).eval()
with torch.no_grad():
    numpy.save(logits, loaded(input_ids=torch.from_numpy(numpy.load(tokens))).logits.numpy())
