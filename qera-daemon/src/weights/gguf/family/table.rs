//! The listed families: how a GGUF's architecture, the tensors of a block and their row orders
//! correspond to the Hugging Face models that are converted to it. Names are those of gguf's tensor
//! map. Which rows move is decided by llama.cpp's converter for each class, and stated nowhere
//! else: classes that inherit from Llama's keep or lose the order one by one.
//!
//! Nothing is guessed of other architectures. Llama 4, Apertus, Granite, SmolLM3 and others, whose
//! tensors have the names of Llama's, are architectures of their own.

use crate::weights::gguf::family::{BlockLayer, Family};
use crate::weights::gguf::rows::{Heads, RowRule};

const QUERY: RowRule = RowRule::RopePairs(Heads::Query);
const KEY: RowRule = RowRule::RopePairs(Heads::Key);
const AS_THEY_LIE: RowRule = RowRule::AsTheyLie;

const fn layer(path: &'static str, tensor: &'static str, rows: RowRule) -> BlockLayer {
    BlockLayer { path, tensor, rows }
}

/// The names of the Llama class, with these row orders of q and k.
const fn llama(query: RowRule, key: RowRule) -> [BlockLayer; 7] {
    [
        layer("self_attn.q_proj", "attn_q", query),
        layer("self_attn.k_proj", "attn_k", key),
        layer("self_attn.v_proj", "attn_v", AS_THEY_LIE),
        layer("self_attn.o_proj", "attn_output", AS_THEY_LIE),
        layer("mlp.gate_proj", "ffn_gate", AS_THEY_LIE),
        layer("mlp.up_proj", "ffn_up", AS_THEY_LIE),
        layer("mlp.down_proj", "ffn_down", AS_THEY_LIE),
    ]
}

/// For Llama, which rotates neighbours.
const IN_PAIRS: &[BlockLayer] = &llama(QUERY, KEY);
/// For classes that rotate halves, as Transformers does.
const IN_HALVES: &[BlockLayer] = &llama(AS_THEY_LIE, AS_THEY_LIE);
/// Attention is Llama's; experts are three-dimensional in a GGUF, and are no layers there.
const MIXTRAL: &[BlockLayer] = &[
    layer("self_attn.q_proj", "attn_q", QUERY),
    layer("self_attn.k_proj", "attn_k", KEY),
    layer("self_attn.v_proj", "attn_v", AS_THEY_LIE),
    layer("self_attn.o_proj", "attn_output", AS_THEY_LIE),
    layer("block_sparse_moe.gate", "ffn_gate_inp", AS_THEY_LIE),
];
/// Fused q, k and v by groups of heads, which a GGUF separates.
const QUERY_KEY_VALUE: &[BlockLayer] = &[
    layer(
        "self_attention.query_key_value",
        "attn_qkv",
        RowRule::FusedByGroups,
    ),
    layer("self_attention.dense", "attn_output", AS_THEY_LIE),
    layer("mlp.dense_h_to_4h", "ffn_up", AS_THEY_LIE),
    layer("mlp.dense_4h_to_h", "ffn_down", AS_THEY_LIE),
];
const BERT: &[BlockLayer] = &[
    layer("attention.self.query", "attn_q", AS_THEY_LIE),
    layer("attention.self.key", "attn_k", AS_THEY_LIE),
    layer("attention.self.value", "attn_v", AS_THEY_LIE),
    layer("attention.output.dense", "attn_output", AS_THEY_LIE),
    layer("intermediate.dense", "ffn_up", AS_THEY_LIE),
    layer("output.dense", "ffn_down", AS_THEY_LIE),
];

/// Decoders with Llama's names.
const fn decoder(architecture: &'static str, model_types: &'static [&'static str]) -> Family {
    Family {
        architecture,
        model_types,
        layers: IN_HALVES,
        embedding: "embed_tokens",
    }
}

/// Encoders with BERT's names.
const fn encoder(model_types: &'static [&'static str]) -> Family {
    Family {
        architecture: "bert",
        model_types,
        layers: BERT,
        embedding: "embeddings.word_embeddings",
    }
}

/// All listed families. Where only the architecture is known, and it is listed more than once, the
/// first entry is meant.
pub(super) const LISTED: &[Family] = &[
    Family {
        layers: IN_PAIRS,
        ..decoder("llama", &["llama", "mistral"])
    },
    Family {
        layers: MIXTRAL,
        ..decoder("llama", &["mixtral"])
    },
    Family {
        layers: IN_PAIRS,
        ..decoder("olmo", &["olmo"])
    },
    decoder("olmo2", &["olmo2"]),
    decoder("qwen2", &["qwen2"]),
    decoder("qwen3", &["qwen3"]),
    decoder("gemma", &["gemma"]),
    decoder("gemma2", &["gemma2"]),
    decoder("gemma3", &["gemma3_text"]),
    decoder("stablelm", &["stablelm"]),
    decoder("command-r", &["cohere"]),
    Family {
        // q, k and v are one tensor, and so are gate and up: in both worlds, and in the same order.
        layers: &[
            layer("self_attn.qkv_proj", "attn_qkv", AS_THEY_LIE),
            layer("self_attn.o_proj", "attn_output", AS_THEY_LIE),
            layer("mlp.gate_up_proj", "ffn_up", AS_THEY_LIE),
            layer("mlp.down_proj", "ffn_down", AS_THEY_LIE),
        ],
        ..decoder("phi3", &["phi3"])
    },
    Family {
        architecture: "falcon",
        model_types: &["falcon"],
        layers: QUERY_KEY_VALUE,
        embedding: "word_embeddings",
    },
    Family {
        architecture: "bloom",
        model_types: &["bloom"],
        layers: QUERY_KEY_VALUE,
        embedding: "word_embeddings",
    },
    Family {
        architecture: "gpt2",
        model_types: &["gpt2"],
        layers: &[
            layer("attn.c_attn", "attn_qkv", AS_THEY_LIE),
            layer("attn.c_proj", "attn_output", AS_THEY_LIE),
            layer("mlp.c_fc", "ffn_up", AS_THEY_LIE),
            layer("mlp.c_proj", "ffn_down", AS_THEY_LIE),
        ],
        embedding: "wte",
    },
    Family {
        architecture: "mpt",
        model_types: &["mpt"],
        layers: &[
            layer("attn.Wqkv", "attn_qkv", AS_THEY_LIE),
            layer("attn.out_proj", "attn_output", AS_THEY_LIE),
            layer("ffn.up_proj", "ffn_up", AS_THEY_LIE),
            layer("ffn.down_proj", "ffn_down", AS_THEY_LIE),
        ],
        embedding: "wte",
    },
    encoder(&["bert"]),
    encoder(&["roberta", "xlm-roberta", "camembert"]),
    Family {
        layers: &[
            layer("attention.q_lin", "attn_q", AS_THEY_LIE),
            layer("attention.k_lin", "attn_k", AS_THEY_LIE),
            layer("attention.v_lin", "attn_v", AS_THEY_LIE),
            layer("attention.out_lin", "attn_output", AS_THEY_LIE),
            layer("ffn.lin1", "ffn_up", AS_THEY_LIE),
            layer("ffn.lin2", "ffn_down", AS_THEY_LIE),
        ],
        ..encoder(&["distilbert"])
    },
];
