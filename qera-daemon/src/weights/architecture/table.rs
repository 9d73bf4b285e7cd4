//! The listed architectures. An entry says what a class of Hugging Face Transformers does in a
//! block: which linear layers it has, and which of them read the same tensor. Paths are those of
//! the base class (`LlamaModel`); the causal class puts `prefix` before them.
//!
//! Nothing is guessed of other architectures: their layers are joined only by the shards'
//! `qera.shares`.

use crate::weights::architecture::{Architecture, Origin, Serving};

/// Loaded by `AutoModelForCausalLM`.
const CAUSAL: Serving = Serving {
    class: "AutoModelForCausalLM",
    task_type: "CAUSAL_LM",
};
/// Loaded by `AutoModelForSeq2SeqLM`.
const SEQ_TO_SEQ: Serving = Serving {
    class: "AutoModelForSeq2SeqLM",
    task_type: "SEQ_2_SEQ_LM",
};
/// Loaded by `AutoModel`, whose names have no prefix.
const FEATURES: Serving = Serving {
    class: "AutoModel",
    task_type: "FEATURE_EXTRACTION",
};

const QKV: &[&str] = &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
const GATE_UP: &[&str] = &["mlp.gate_proj", "mlp.up_proj"];
const LLAMA: &[&[&str]] = &[QKV, &["self_attn.o_proj"], GATE_UP, &["mlp.down_proj"]];
/// Fused q, k and v as GPT-NeoX has them.
const QUERY_KEY_VALUE: &[&[&str]] = &[
    &["self_attention.query_key_value"],
    &["self_attention.dense"],
    &["mlp.dense_h_to_4h"],
    &["mlp.dense_4h_to_h"],
];
const GPT2: &[&[&str]] = &[
    &["attn.c_attn"],
    &["attn.c_proj"],
    // This reads the encoder's output; the query is the decoder's own.
    &["crossattention.c_attn"],
    &["crossattention.q_attn"],
    &["crossattention.c_proj"],
    &["mlp.c_fc"],
    &["mlp.c_proj"],
];
const BERT: &[&[&str]] = &[
    &[
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
    ],
    &["attention.output.dense"],
    &["crossattention.self.query"],
    &["crossattention.self.key", "crossattention.self.value"],
    &["crossattention.output.dense"],
    &["intermediate.dense"],
    &["output.dense"],
];
const BART: &[&[&str]] = &[
    QKV,
    &["self_attn.out_proj"],
    &["encoder_attn.q_proj"],
    &["encoder_attn.k_proj", "encoder_attn.v_proj"],
    &["encoder_attn.out_proj"],
    &["fc1"],
    &["fc2"],
];
const T5: &[&[&str]] = &[
    &[
        "layer.*.SelfAttention.q",
        "layer.*.SelfAttention.k",
        "layer.*.SelfAttention.v",
    ],
    &["layer.*.SelfAttention.o"],
    &["layer.*.EncDecAttention.q"],
    &["layer.*.EncDecAttention.k", "layer.*.EncDecAttention.v"],
    &["layer.*.EncDecAttention.o"],
    &["layer.*.DenseReluDense.wi"],
    &["layer.*.DenseReluDense.wi_0", "layer.*.DenseReluDense.wi_1"],
    &["layer.*.DenseReluDense.wo"],
];

/// A decoder whose weights are nn.Linear's; the other entries differ from it where they say so.
const DECODER: Architecture = Architecture {
    model_types: &[],
    prefix: "model",
    blocks: &["layers.*"],
    inputs: LLAMA,
    transposed: false,
    serving: Some(CAUSAL),
    origin: Origin::Transformers,
};

/// All listed architectures.
pub(super) const LISTED: &[Architecture] = &[
    Architecture {
        model_types: &["llama", "mistral", "qwen2", "gemma", "stablelm", "olmo"],
        ..DECODER
    },
    Architecture {
        model_types: &[
            "qwen3",
            "gemma2",
            "gemma3_text",
            "olmo2",
            "granite",
            "smollm3",
        ],
        origin: Origin::TensorMap,
        ..DECODER
    },
    Architecture {
        // Attention and feed-forward stand side by side: both read the output of the one norm.
        model_types: &["cohere"],
        inputs: &[
            &[
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "mlp.gate_proj",
                "mlp.up_proj",
            ],
            &["self_attn.o_proj"],
            &["mlp.down_proj"],
        ],
        ..DECODER
    },
    Architecture {
        model_types: &["phi"],
        inputs: &[
            &[
                "self_attn.q_proj",
                "self_attn.k_proj",
                "self_attn.v_proj",
                "mlp.fc1",
            ],
            &["self_attn.dense"],
            &["mlp.fc2"],
        ],
        ..DECODER
    },
    Architecture {
        model_types: &["phi3"],
        inputs: &[
            &["self_attn.qkv_proj"],
            &["self_attn.o_proj"],
            &["mlp.gate_up_proj"],
            &["mlp.down_proj"],
        ],
        origin: Origin::TensorMap,
        ..DECODER
    },
    Architecture {
        model_types: &["starcoder2"],
        inputs: &[QKV, &["self_attn.o_proj"], &["mlp.c_fc"], &["mlp.c_proj"]],
        ..DECODER
    },
    Architecture {
        model_types: &["mixtral"],
        inputs: &[
            QKV,
            &["self_attn.o_proj"],
            &["block_sparse_moe.gate"],
            &[
                "block_sparse_moe.experts.*.w1",
                "block_sparse_moe.experts.*.w3",
            ],
            &["block_sparse_moe.experts.*.w2"],
        ],
        ..DECODER
    },
    Architecture {
        model_types: &["qwen2_moe"],
        inputs: &[
            QKV,
            &["self_attn.o_proj"],
            GATE_UP,
            &["mlp.down_proj"],
            &["mlp.gate"],
            &["mlp.experts.*.gate_proj", "mlp.experts.*.up_proj"],
            &["mlp.experts.*.down_proj"],
            &["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"],
            &["mlp.shared_expert.down_proj"],
            &["mlp.shared_expert_gate"],
        ],
        ..DECODER
    },
    Architecture {
        model_types: &["opt"],
        blocks: &["decoder.layers.*"],
        inputs: &[QKV, &["self_attn.out_proj"], &["fc1"], &["fc2"]],
        ..DECODER
    },
    Architecture {
        model_types: &["bloom", "falcon"],
        prefix: "transformer",
        blocks: &["h.*"],
        inputs: QUERY_KEY_VALUE,
        ..DECODER
    },
    Architecture {
        model_types: &["gpt_neox"],
        prefix: "gpt_neox",
        inputs: &[
            &["attention.query_key_value"],
            &["attention.dense"],
            &["mlp.dense_h_to_4h"],
            &["mlp.dense_4h_to_h"],
        ],
        ..DECODER
    },
    Architecture {
        model_types: &["mpt"],
        prefix: "transformer",
        blocks: &["blocks.*"],
        inputs: &[
            &["attn.Wqkv"],
            &["attn.out_proj"],
            &["ffn.up_proj"],
            &["ffn.down_proj"],
        ],
        ..DECODER
    },
    Architecture {
        model_types: &["gptj"],
        prefix: "transformer",
        blocks: &["h.*"],
        inputs: &[
            &["attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.fc_in"],
            &["attn.out_proj"],
            &["mlp.fc_out"],
        ],
        ..DECODER
    },
    Architecture {
        // The names of GPT-2, but with nn.Linear.
        model_types: &["gpt_bigcode"],
        prefix: "transformer",
        blocks: &["h.*"],
        inputs: &[
            &["attn.c_attn"],
            &["attn.c_proj"],
            &["mlp.c_fc"],
            &["mlp.c_proj"],
        ],
        ..DECODER
    },
    Architecture {
        model_types: &["gpt_neo"],
        prefix: "transformer",
        blocks: &["h.*"],
        inputs: &[
            &[
                "attn.attention.q_proj",
                "attn.attention.k_proj",
                "attn.attention.v_proj",
            ],
            &["attn.attention.out_proj"],
            &["mlp.c_fc"],
            &["mlp.c_proj"],
        ],
        ..DECODER
    },
    Architecture {
        model_types: &["gpt2", "openai-gpt"],
        prefix: "transformer",
        blocks: &["h.*"],
        inputs: GPT2,
        transposed: true,
        ..DECODER
    },
    Architecture {
        model_types: &["imagegpt"],
        prefix: "transformer",
        blocks: &["h.*"],
        inputs: GPT2,
        transposed: true,
        serving: None,
        ..DECODER
    },
    Architecture {
        model_types: &["decision_transformer"],
        prefix: "",
        blocks: &["encoder.h.*"],
        inputs: GPT2,
        transposed: true,
        serving: None,
        origin: Origin::Source,
    },
    Architecture {
        model_types: &["bert"],
        prefix: "bert",
        blocks: &["encoder.layer.*"],
        inputs: BERT,
        serving: Some(FEATURES),
        ..DECODER
    },
    Architecture {
        model_types: &["roberta", "xlm-roberta", "camembert"],
        prefix: "roberta",
        blocks: &["encoder.layer.*"],
        inputs: BERT,
        serving: Some(FEATURES),
        ..DECODER
    },
    Architecture {
        model_types: &["distilbert"],
        prefix: "distilbert",
        blocks: &["transformer.layer.*"],
        inputs: &[
            &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
            &["attention.out_lin"],
            &["ffn.lin1"],
            &["ffn.lin2"],
        ],
        serving: Some(FEATURES),
        ..DECODER
    },
    Architecture {
        model_types: &["t5", "mt5"],
        prefix: "",
        blocks: &["encoder.block.*", "decoder.block.*"],
        inputs: T5,
        serving: Some(SEQ_TO_SEQ),
        ..DECODER
    },
    Architecture {
        model_types: &["bart", "mbart", "pegasus", "marian", "m2m_100"],
        blocks: &["encoder.layers.*", "decoder.layers.*"],
        inputs: BART,
        serving: Some(SEQ_TO_SEQ),
        ..DECODER
    },
];
