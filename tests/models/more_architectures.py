"""Architectures of the long form: those that are listed, and some that no list knows."""

from architectures import BLOCKS, GPT2_SIZES, HEADS, HIDDEN, LLAMA_LIKE, WIDE, Architecture
from test_listed import LISTED

XGLM_SIZES = dict(d_model=HIDDEN, ffn_dim=WIDE, num_layers=BLOCKS, attention_heads=HEADS, max_position_embeddings=64)

EVERY_ARCHITECTURE = LISTED | {
    "codegen": Architecture("CodeGenForCausalLM", GPT2_SIZES | dict(rotary_dim=4)),
    "xglm": Architecture("XGLMForCausalLM", XGLM_SIZES),
    "biogpt": Architecture("BioGptForCausalLM", LLAMA_LIKE),
    "persimmon": Architecture("PersimmonForCausalLM", LLAMA_LIKE),
}
