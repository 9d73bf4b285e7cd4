"""Small checkpoints of every family of weights/gguf/family/table.rs, with drawn weights: saved by
the class of Transformers where the pinned version has it, and otherwise written with the names and
shapes that the class has."""

import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "models"))

import torch
import transformers
from architectures import ARCHITECTURES, BERT_LIKE, GROUPED, LLAMA_LIKE, UNTIED, VOCABULARY, draw
from safetensors.torch import load_file, save_file

HIDDEN, WIDE, HEADS, KEY_HEADS, BLOCKS = 48, 112, 4, 2, 2
#: A head's length where a family's is not HIDDEN / HEADS.
HEAD = 16

FALCON = dict(hidden_size=HIDDEN, num_attention_heads=HEADS, num_hidden_layers=BLOCKS, bias=False)
XLM = dict(vocab_size=VOCABULARY, pad_token_id=1, **BERT_LIKE)

#: Classes with other sizes than those of the stage `models`, by name.
CLASSES = {
    "llama one head of k for each of q": ("LlamaForCausalLM", LLAMA_LIKE | UNTIED),
    "llama of the base class": ("LlamaModel", LLAMA_LIKE | GROUPED),
    "olmo in groups": ("OlmoForCausalLM", LLAMA_LIKE | UNTIED | GROUPED),
    "falcon of one k": ("FalconForCausalLM", FALCON | dict(multi_query=True, num_kv_heads=1)),
    "falcon in groups": (
        "FalconForCausalLM",
        FALCON | dict(new_decoder_architecture=True, num_kv_heads=KEY_HEADS),
    ),
    "distilbert": (
        "DistilBertModel",
        dict(dim=HIDDEN, hidden_dim=WIDE, n_heads=HEADS, n_layers=BLOCKS),
    ),
    "bert with a head": ("BertForMaskedLM", BERT_LIKE),
    "xlm-roberta": ("XLMRobertaModel", XLM),
    "camembert": ("CamembertModel", XLM),
}
#: Of the stage `models`, by its names.
SHARED = (
    "llama mistral mixtral qwen2 gemma stablelm gpt2 bloom cohere olmo mpt bert roberta".split()
)

#: What config.json of the checkpoints that were converted says, and the class does not save: MPT's
#: class was first another's, whose names are the same.
OLDER = {"gpt2": {"n_ctx": 64}, "mpt": {"architectures": ["MPTForCausalLM"]}}


def llama_names(query, key):
    """Shapes of a block's layers by path, where q and k have so many rows."""
    return {
        "self_attn.q_proj": (query, HIDDEN),
        "self_attn.k_proj": (key, HIDDEN),
        "self_attn.v_proj": (key, HIDDEN),
        "self_attn.o_proj": (HIDDEN, query),
        "mlp.gate_proj": (WIDE, HIDDEN),
        "mlp.up_proj": (WIDE, HIDDEN),
        "mlp.down_proj": (HIDDEN, WIDE),
    }


LLAMA_SIZES = dict(
    hidden_size=HIDDEN,
    intermediate_size=WIDE,
    num_hidden_layers=BLOCKS,
    num_attention_heads=HEADS,
    num_key_value_heads=KEY_HEADS,
    max_position_embeddings=64,
    vocab_size=VOCABULARY,
    rms_norm_eps=1e-6,
    rope_theta=1e4,
)
GEMMA_SIZES = LLAMA_SIZES | dict(head_dim=HEAD, sliding_window=16)
WITH_HEAD = llama_names(HEADS * HEAD, KEY_HEADS * HEAD)
#: (class, what config.json says, shapes of a block's layers): what the pinned version has not.
WRITTEN = {
    "qwen3": ("Qwen3ForCausalLM", LLAMA_SIZES | dict(head_dim=HEAD), WITH_HEAD),
    "gemma2": (
        "Gemma2ForCausalLM",
        GEMMA_SIZES | dict(attn_logit_softcapping=50.0, final_logit_softcapping=30.0),
        WITH_HEAD,
    ),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        GEMMA_SIZES | dict(sliding_window_pattern=6),
        WITH_HEAD,
    ),
    "olmo2": ("Olmo2ForCausalLM", LLAMA_SIZES, llama_names(HIDDEN, HIDDEN // 2)),
    "phi3": (
        "Phi3ForCausalLM",
        LLAMA_SIZES | dict(original_max_position_embeddings=64, rope_scaling=None),
        {
            "self_attn.qkv_proj": (HIDDEN * 2, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN),
            "mlp.gate_up_proj": (2 * WIDE, HIDDEN),
            "mlp.down_proj": (HIDDEN, WIDE),
        },
    ),
}


def names():
    """Every checkpoint's name, which begins with its model_type."""
    return [*SHARED, *CLASSES, *WRITTEN]


def save(name, folder):
    """Writes a checkpoint; returns its configuration and, by module, its two-dimensional weights
    as [out_features, in_features]."""
    if name in WRITTEN:
        write(name, folder)
    else:
        make(name).save_pretrained(folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    if name in OLDER:
        config |= OLDER[name]
        (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    weights = {
        tensor[: -len(".weight")]: weight
        for tensor, weight in tensors.items()
        if tensor.endswith(".weight") and weight.dim() == 2
    }
    if config["model_type"] == "gpt2":
        is_conv1d = lambda module: ".h." in f".{module}"
        weights = {m: w.t().contiguous() if is_conv1d(m) else w for m, w in weights.items()}
    return config, weights


def make(name):
    if name in SHARED:
        return ARCHITECTURES[name].make(seed=len(name))
    class_name, sizes = CLASSES[name]
    model_class = getattr(transformers, class_name)
    model = model_class(model_class.config_class(**{"vocab_size": VOCABULARY} | sizes)).eval()
    draw(model, seed=len(name))
    return model


def write(name, folder):
    class_name, says, block = WRITTEN[name]
    config = {"architectures": [class_name], "model_type": name, "torch_dtype": "float32"} | says
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(len(name))
    tensors = {
        f"model.layers.{number}.{path}.weight": torch.randn(shape, generator=generator)
        for number in range(BLOCKS)
        for path, shape in block.items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
