//! Shards whose keys are a GGUF's names, beside a checkpoint of Hugging Face.

use qera_tests::daemon::expect;
use qera_tests::safetensors_file::Metadata;

use super::linears::{Weight, daemon_with_model, record, run};

const LLAMA: &str = r#"{"model_type":"llama"}"#;
const LLAMA_WEIGHTS: &[Weight<'_>] = &[
    ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
    ("model.layers.0.self_attn.k_proj.weight", &[4, 8]),
    ("model.layers.0.mlp.down_proj.weight", &[8, 12]),
    ("model.embed_tokens.weight", &[20, 8]),
];

/// A recorded q feeds k as well, an output that is the embedding is no layer, and the adapter has
/// the names of Hugging Face.
#[test]
fn a_family_s_names_are_known() {
    for suffix in ["", ".weight"] {
        let daemon = daemon_with_model(Some(LLAMA), LLAMA_WEIGHTS);
        let keys = ["blk.0.attn_q", "blk.0.ffn_down", "token_embd", "output"];
        let keys = keys.map(|key| format!("{key}{suffix}"));
        let rows = [
            (keys[0].as_str(), 8),
            (keys[1].as_str(), 12),
            (keys[2].as_str(), 8),
            (keys[3].as_str(), 8),
        ];
        let shares = [Metadata::new(
            "qera.shares",
            r#"[["blk.0.attn_q", "blk.0.attn_k"]]"#,
        )];
        record(&daemon, "a", &rows, &shares);
        expect(&run(&daemon, &[]), 0, &["3 layers corrected, 0 starved"]);
        let adapter = daemon.adapter("qera-out");
        for (module, recorded) in [
            ("model.layers.0.self_attn.q_proj", "blk.0.attn_q"),
            ("model.layers.0.self_attn.k_proj", "blk.0.attn_k"),
            ("model.layers.0.mlp.down_proj", "blk.0.ffn_down"),
        ] {
            assert!(adapter.has(module), "{module}");
            assert_eq!(adapter.layer(module)["recorded_as"], recorded);
        }
        expect(&run(&daemon, &[]), 0, &["nothing new"]);
    }
}

/// Whoever names the class of a model that llama.cpp runs: a GGUF's names are not that class's.
#[test]
fn a_recorded_class_has_no_names_of_a_gguf() {
    let class = [Metadata::new("qera.class", "LlamaForCausalLM")];
    let granite = r#"{"model_type":"granite"}"#;
    let map = ["--map", "blk.*.attn_q=model.layers.*.self_attn.q_proj"];
    for (config, more) in [(Some(LLAMA), &[][..]), (Some(granite), &map), (None, &map)] {
        let daemon = daemon_with_model(config, LLAMA_WEIGHTS);
        record(&daemon, "a", &[("blk.0.attn_q", 8)], &class);
        expect(&run(&daemon, more), 0, &["layers corrected, 0 starved"]);
        let adapter = daemon.adapter("qera-out");
        assert_eq!(adapter.manifest["serving"]["class"], "LlamaForCausalLM");
        let layer = adapter.layer("model.layers.0.self_attn.q_proj");
        assert_eq!(layer["served_as"], "model.layers.0.self_attn.q_proj");
        assert!(adapter.has("model.layers.0.self_attn.q_proj"), "{config:?}");
    }
}

/// What was gathered under a GGUF's names is solved with the checkpoint of Hugging Face.
#[test]
fn a_state_of_a_gguf_s_names_is_named_later() {
    let (gathered, at_once) = (
        daemon_with_model(Some(LLAMA), LLAMA_WEIGHTS),
        daemon_with_model(Some(LLAMA), LLAMA_WEIGHTS),
    );
    for daemon in [&gathered, &at_once] {
        let keys = [("blk.0.attn_k.weight", 8), ("blk.0.ffn_down.weight", 12)];
        record(daemon, "a", &keys, &[]);
    }
    let gather = "--once --watch activations --rank 2 --block-size 4";
    let gather: Vec<&str> = gather.split(' ').collect();
    expect(&gathered.run(&gather), 0, &["holds the statistics"]);
    let solve =
        "solve --checkpoint checkpoint --rank 2 --block-size 4 --state qera-out/state --out s";
    let solve: Vec<&str> = solve.split(' ').collect();
    expect(&gathered.run(&solve), 0, &["3 layers corrected"]);
    expect(&run(&at_once, &[]), 0, &["3 layers corrected"]);
    let (one, other) = (gathered.adapter("s"), at_once.adapter("qera-out"));
    assert!(one.bytes == other.bytes);
}

/// GPT-2 stores its weights the other way round than a GGUF; a tap says the two widths.
#[test]
fn a_layer_that_lies_transposed_is_met_by_its_widths() {
    let weights: &[Weight<'_>] = &[("transformer.h.0.attn.c_attn.weight", &[8, 24])];
    let daemon = daemon_with_model(Some(r#"{"model_type":"gpt2"}"#), weights);
    let linears = r#"[{"name":"blk.0.attn_qkv","in":8,"out":24}]"#;
    let said = [Metadata::new("qera.linears", linears)];
    record(&daemon, "a", &[("blk.0.attn_qkv", 8)], &said);
    expect(&run(&daemon, &[]), 0, &["1 layers corrected, 0 starved"]);
    let adapter = daemon.adapter("qera-out");
    assert!(adapter.has("transformer.h.0.attn.c_attn"));
}

#[test]
fn what_is_not_known_is_refused_and_said() {
    let granite = Some(r#"{"model_type":"granite"}"#);
    for (config, key, width, words) in [
        (
            granite,
            "blk.0.attn_q",
            8,
            "'blk.0.attn_q' is a GGUF's name",
        ),
        (
            None,
            "blk.0.attn_q",
            8,
            "not known from config.json's model_type",
        ),
        // A name that the family has, but not this model.
        (
            Some(LLAMA),
            "blk.1.attn_q",
            8,
            "'blk.1.attn_q' names no weight",
        ),
        (
            Some(LLAMA),
            "blk.0.attn_q",
            9,
            "'blk.0.attn_q' names no weight",
        ),
    ] {
        let daemon = daemon_with_model(config, LLAMA_WEIGHTS);
        record(&daemon, "a", &[(key, width)], &[]);
        let refused = run(&daemon, &[]);
        expect(&refused, 1, &[words, "--map PATTERN=REPLACEMENT"]);
    }
    // A rule can still name what is not listed.
    let daemon = daemon_with_model(granite, LLAMA_WEIGHTS);
    record(&daemon, "a", &[("blk.0.attn_q", 8)], &[]);
    let map = ["--map", "blk.*.attn_q=model.layers.*.self_attn.q_proj"];
    expect(&run(&daemon, &map), 0, &["layers corrected"]);
}
