"""Small GGUF models with random weights and no tokenizer, which llama.cpp runs."""

import gguf
import numpy as np

WIDTH, FEED, HEADS, KV_HEADS, BLOCKS, TOKENS = 64, 96, 4, 2, 2, 48


def weights(random, experts):
    """Name -> array as `[out, in]`."""
    half = WIDTH * KV_HEADS // HEADS
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (half, WIDTH), "attn_v": (half, WIDTH)}
    shapes |= {"attn_output": (WIDTH, WIDTH)}
    feed = {"ffn_gate": (FEED, WIDTH), "ffn_up": (FEED, WIDTH), "ffn_down": (WIDTH, FEED)}
    if experts:
        feed = {f"{name}_exps": (experts, *shape) for name, shape in feed.items()} | {"ffn_gate_inp": (experts, WIDTH)}
    tensors = {"token_embd.weight": random.normal(size=(TOKENS, WIDTH)), "output_norm.weight": np.ones(WIDTH)}
    for block in range(BLOCKS):
        for name, shape in (shapes | feed).items():
            tensors[f"blk.{block}.{name}.weight"] = random.normal(size=shape) / np.sqrt(shape[-1])
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{block}.{name}.weight"] = random.uniform(0.5, 1.5, WIDTH)
    return {name: array.astype(np.float32) for name, array in tensors.items()}


def write_tiny(path, kind="F32", experts=0):
    """Writes a Llama; its layers are of type `kind`. Returns the weights as they were before."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(TOKENS)
    writer.add_tokenizer_model("none")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(2)
    tensors = weights(np.random.default_rng(7), experts)
    for name, array in tensors.items():
        of = gguf.GGMLQuantizationType[kind if array.ndim > 1 and "blk" in name and "_inp" not in name else "F32"]
        writer.add_tensor(name, gguf.quantize(array, of), raw_dtype=of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors
