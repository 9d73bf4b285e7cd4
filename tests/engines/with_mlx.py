"""Logits of a checkpoint with an adapter of MLX over it, as mlx_lm's `--adapter-path` loads it:
`with_mlx.py MODEL ADAPTER TOKENS.npy LOGITS.npy`."""

import pathlib
import sys

import mlx.core as mx
import numpy
from mlx.utils import tree_flatten
from mlx_lm.utils import load_adapters, load_model

model, adapter, tokens, logits = sys.argv[1:]
mx.set_default_device(mx.cpu)
loaded, _ = load_model(pathlib.Path(model))
assert {array.dtype for _, array in tree_flatten(loaded.parameters())} == {mx.float32}
loaded = load_adapters(loaded, adapter)
numpy.save(logits, numpy.array(loaded(mx.array(numpy.load(tokens)))))
