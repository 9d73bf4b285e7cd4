//! Names on three sides: in the shards, in the checkpoint, in the class that serves the model.

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::Metadata;

use super::linears::{Weight, daemon_with_model, record, run};

const BLOOM: &[Weight<'_>] = &[
    ("h.0.mlp.dense_h_to_4h.weight", &[12, 8]),
    ("h.0.mlp.dense_4h_to_h.weight", &[8, 12]),
];
const UP: &str = "h.0.mlp.dense_h_to_4h";
const DOWN: &str = "h.0.mlp.dense_4h_to_h";

/// A checkpoint that the base class saved, recorded under a prefix.
fn recorded_under(config: Option<&str>, prefix: &str, said: &[Metadata<'_>]) -> TestDaemon {
    let daemon = daemon_with_model(config, BLOOM);
    let keys = [format!("{prefix}{UP}"), format!("{prefix}{DOWN}")];
    record(&daemon, "a", &[(&keys[0], 8), (&keys[1], 12)], said);
    daemon
}

/// [vLLM 34186] Bloom's checkpoints lack the prefix that the causal class has.
#[test]
fn the_adapter_has_the_names_of_the_causal_class() {
    let bloom = Some(r#"{"model_type":"bloom"}"#);
    for prefix in [
        "",
        "transformer.",
        "_orig_mod.transformer.",
        "module.",
        "base_model.model.",
    ] {
        let daemon = recorded_under(bloom, prefix, &[]);
        expect(&run(&daemon, &[]), 0, &["2 layers corrected, 0 starved"]);
        let adapter = daemon.adapter("qera-out");
        let layer = adapter.layer(UP);
        assert_eq!(layer["recorded_as"], format!("{prefix}{UP}"));
        assert_eq!(layer["served_as"], format!("transformer.{UP}"), "{prefix}");
        assert!(adapter.has(&format!("transformer.{UP}")), "{prefix}");
        assert_eq!(adapter.manifest["serving"]["class"], "AutoModelForCausalLM");
        let again = run(&daemon, &[]);
        expect(&again, 0, &["nothing new"]);
    }
}

#[test]
fn the_recorded_class_decides_where_it_is_named() {
    let said = [
        Metadata::new("qera.class", "MyForSequenceClassification"),
        Metadata::new("qera.task_type", "SEQ_CLS"),
    ];
    let daemon = recorded_under(None, "backbone.", &said);
    expect(&run(&daemon, &[]), 0, &["2 layers corrected"]);
    let adapter = daemon.adapter("qera-out");
    assert!(adapter.has(&format!("backbone.{UP}")));
    assert_eq!(adapter.config["task_type"], "SEQ_CLS");
    let readme = daemon.path().join("qera-out/current/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    assert!(
        readme.contains("MyForSequenceClassification.from_pretrained"),
        "{readme}"
    );
    assert!(!readme.contains("vllm"), "{readme}");
    // The names of modules that wrap the class are not part of a layer's name.
    for wrapper in ["_orig_mod.", "module.", "base_model.model."] {
        let daemon = recorded_under(None, wrapper, &said);
        expect(&run(&daemon, &[]), 0, &["2 layers corrected"]);
        assert!(daemon.adapter("qera-out").has(UP), "{wrapper}");
    }
    // Another class under the same state is another model.
    let keys = [format!("backbone.{UP}"), format!("backbone.{DOWN}")];
    let other = [Metadata::new("qera.class", "Another")];
    record(&daemon, "b", &[(&keys[0], 8), (&keys[1], 12)], &other);
    let ended = run(&daemon, &[]);
    expect(
        &ended,
        3,
        &["qera.class is 'Another'", "MyForSequenceClassification"],
    );
}

/// Whatever wraps a listed class, its layers are known by their paths; a head beside the map keeps
/// its name.
#[test]
fn an_unknown_wrapper_is_no_part_of_a_listed_class() {
    let weights: &[Weight<'_>] = &[
        ("transformer.h.0.mlp.dense_h_to_4h.weight", &[12, 8]),
        ("lm_head.weight", &[20, 8]),
    ];
    let bloom = Some(r#"{"model_type":"bloom","tie_word_embeddings":false}"#);
    let class = [Metadata::new("qera.class", "BloomForCausalLM")];
    let daemon = daemon_with_model(bloom, weights);
    let key = format!("policy.transformer.{UP}");
    record(&daemon, "a", &[(&key, 8)], &class);
    expect(&run(&daemon, &[]), 0, &["1 layers corrected"]);
    assert!(daemon.adapter("qera-out").has(&format!("transformer.{UP}")));
    // The body's names, and the head's own, which no prefix was put on.
    let daemon = daemon_with_model(bloom, weights);
    record(&daemon, "a", &[(UP, 8), ("lm_head", 8)], &class);
    let named = [
        "--include",
        "lm_head",
        "--include",
        "*dense*",
        "--map",
        "h=transformer.h",
    ];
    expect(&run(&daemon, &named), 0, &["2 layers corrected"]);
    let adapter = daemon.adapter("qera-out");
    assert!(adapter.has("lm_head"), "{}", adapter.manifest["layers"]);
    assert_eq!(adapter.layer("lm_head")["recorded_as"], "lm_head");
}

/// A map that was wrong and is mended makes another adapter, also of the same bytes.
#[test]
fn another_map_is_another_adapter() {
    let weights: &[Weight<'_>] = &[("a.q.weight", &[4, 8]), ("b.q.weight", &[4, 8])];
    let daemon = daemon_with_model(None, weights);
    let class = [Metadata::new("qera.class", "Any")];
    record(&daemon, "s", &[("q", 8)], &class);
    expect(&run(&daemon, &["--map", "=a"]), 0, &["1 layers corrected"]);
    let mended = ["--map", "=b", "--state", "anew"];
    expect(&run(&daemon, &mended), 0, &["published generation 2"]);
    assert_eq!(daemon.adapter("qera-out").layers()[0]["name"], "b.q");
}

/// A layer may be named by `qera.shares` or `qera.linears` alone: llama.cpp's tap has one key for
/// q, k and v. A rule that meets no name at all is refused.
#[test]
fn a_map_meets_names_that_are_no_keys() {
    let weights: &[Weight<'_>] = &[
        ("own.q.weight", &[4, 8]),
        ("own.k.weight", &[4, 8]),
        ("own.up.weight", &[6, 8]),
    ];
    let daemon = daemon_with_model(None, weights);
    let said = [
        Metadata::new("qera.class", "Any"),
        Metadata::new("qera.shares", r#"[["b.q","b.k"]]"#),
        Metadata::new("qera.linears", r#"[{"name":"b.ffn","in":8,"out":6}]"#),
    ];
    record(&daemon, "a", &[("b.q", 8)], &said);
    let rules = ["--map", "b.q=own.q", "--map", "b.k=own.k", "--map"];
    let run = |last: &str| run(&daemon, &[&rules[..], &[last]].concat());
    let refused = run("b.v=own.up");
    expect(&refused, 2, &["--map 'b.v=own.up': meets no name", "'b.q'"]);
    expect(&run("b.ffn=own.up"), 0, &["2 layers corrected, 1 starved"]);
    assert!(daemon.adapter("qera-out").has("b.k"));
}

/// PEFT has a classifier's head saved whole: factors of it would be left unread.
#[test]
fn the_head_of_a_classifier_is_left_out() {
    let weights: &[Weight<'_>] = &[("score.weight", &[4, 8]), ("h.0.up.weight", &[4, 8])];
    let said = [
        Metadata::new("qera.class", "BloomForSequenceClassification"),
        Metadata::new("qera.task_type", "SEQ_CLS"),
    ];
    let daemon = daemon_with_model(Some(r#"{"model_type":"bloom"}"#), weights);
    record(&daemon, "a", &[("h.0.up", 8), ("score", 8)], &said);
    let refused = run(&daemon, &["--include", "score", "--include", "*.up"]);
    expect(
        &refused,
        2,
        &["--include 'score'", "PEFT saves it whole", "SEQ_CLS"],
    );
    expect(&run(&daemon, &[]), 0, &["1 layers corrected, 0 starved"]);
    assert!(!daemon.adapter("qera-out").has("score"));
}

/// A class whose code lies beside the checkpoint is loaded by the automatic one that names it.
#[test]
fn a_class_of_the_checkpoints_own_code_is_loaded_by_its_automatic_class() {
    let config = r#"{"model_type":"own","auto_map":{"AutoModelForCausalLM":"modeling.OwnLM"}}"#;
    let class = [Metadata::new("qera.class", "OwnLM")];
    let daemon = recorded_under(Some(config), "", &class);
    expect(&run(&daemon, &[]), 0, &["2 layers corrected"]);
    let readme = daemon.path().join("qera-out/current/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    for said in ["import AutoModelForCausalLM", "trust_remote_code=True"] {
        assert!(readme.contains(said), "{readme}");
    }
}

/// AutoModel has no heads: what a classifier adds is asked about, and two tasks are a clash.
#[test]
fn a_layer_that_the_serving_class_lacks_is_refused() {
    let weights: &[Weight<'_>] = &[
        ("bert.encoder.layer.0.output.dense.weight", &[4, 8]),
        ("cls.predictions.transform.dense.weight", &[4, 8]),
    ];
    let (dense, head) = (
        "bert.encoder.layer.0.output.dense",
        "cls.predictions.transform.dense",
    );
    let daemon = daemon_with_model(Some(r#"{"model_type":"bert"}"#), weights);
    record(
        &daemon,
        "a",
        &[(dense, 8)],
        &[Metadata::new("qera.task_type", "TOKEN_CLS")],
    );
    record(&daemon, "b", &[(dense, 8), (head, 8)], &[]);
    record(
        &daemon,
        "c",
        &[(dense, 8)],
        &[Metadata::new("qera.task_type", "SEQ_CLS")],
    );
    let said = [
        "'cls.predictions.transform.dense' the class that serves the model lacks it",
        "qera.task_type is 'SEQ_CLS', the shards before have 'TOKEN_CLS'",
        "1 shards folded, 2 quarantined",
    ];
    expect(&run(&daemon, &[]), 3, &said);
    let adapter = daemon.adapter("qera-out");
    assert!(adapter.has("encoder.layer.0.output.dense"));
    assert_eq!(adapter.config["task_type"], "TOKEN_CLS");
    // "dense" targets no module outside the encoder, because the class that serves has no head.
    assert_eq!(
        adapter.config["target_modules"],
        serde_json::json!(["dense"])
    );
    assert_eq!(
        adapter.manifest["serving"]["outside"],
        serde_json::json!(["cls"])
    );
}

/// A class that only wraps a model is not one that could be loaded.
#[test]
fn a_wrapper_is_not_the_class() {
    let said = [Metadata::new("qera.class", "PeftModelForCausalLM")];
    let bloom = Some(r#"{"model_type":"bloom"}"#);
    let daemon = recorded_under(bloom, "base_model.model.transformer.", &said);
    expect(&run(&daemon, &[]), 0, &["2 layers corrected"]);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.manifest["serving"]["class"], "AutoModelForCausalLM");
    assert!(adapter.has(&format!("transformer.{UP}")));
}

/// What the served class calls a layer is asked for, not guessed.
#[test]
fn an_unknown_class_is_asked_for() {
    // config.json names a class, and who saved the checkpoint is another matter.
    let saved = Some(r#"{"model_type":"codegen","architectures":["CodeGenForCausalLM"]}"#);
    for prefix in ["", "transformer."] {
        let daemon = recorded_under(saved, prefix, &[]);
        expect(
            &run(&daemon, &[]),
            1,
            &["which class serves this model", "qera.class"],
        );
    }
    // T5's encoder alone is not what AutoModelForSeq2SeqLM makes.
    let weights: &[Weight<'_>] = &[("encoder.block.0.layer.0.SelfAttention.q.weight", &[4, 8])];
    let encoder = r#"{"model_type":"t5","architectures":["T5EncoderModel"]}"#;
    let daemon = daemon_with_model(Some(encoder), weights);
    record(
        &daemon,
        "a",
        &[("encoder.block.0.layer.0.SelfAttention.q", 8)],
        &[],
    );
    expect(&run(&daemon, &[]), 1, &["qera.class"]);
    for class in ["", "X\nimport os"] {
        let daemon = recorded_under(None, "", &[Metadata::new("qera.class", class)]);
        expect(&run(&daemon, &[]), 1, &["no name of a class"]);
    }

    let daemon = recorded_under(None, "backbone.", &[]);
    expect(
        &run(&daemon, &[]),
        1,
        &["'backbone.h.0.mlp.dense_h_to_4h'", "qera.class"],
    );
    let odd = [Metadata::new("qera.task_type", "POETRY")];
    let daemon = recorded_under(None, "", &odd);
    expect(&run(&daemon, &[]), 1, &["POETRY", "CAUSAL_LM"]);
}

#[test]
fn two_prefixes_are_not_chosen_from_and_map_says_which() {
    let weights: &[Weight<'_>] = &[
        ("encoder.block.0.q.weight", &[4, 8]),
        ("decoder.block.0.q.weight", &[4, 8]),
    ];
    let daemon = daemon_with_model(None, weights);
    let class = [Metadata::new("qera.class", "OneSide")];
    record(&daemon, "a", &[("block.0.q", 8)], &class);
    let refused = run(&daemon, &[]);
    expect(&refused, 1, &["--map '=decoder'", "--map '=encoder'"]);
    expect(
        &run(&daemon, &["--map", "=decoder"]),
        0,
        &["1 layers corrected"],
    );
    let adapter = daemon.adapter("qera-out");
    // Recorded in OneSide, it is served by OneSide.
    assert_eq!(
        adapter.manifest["serving"]["outside"],
        serde_json::json!(["encoder"])
    );
    assert!(adapter.has("block.0.q"));
    assert_eq!(adapter.layers()[0]["name"], "decoder.block.0.q");
    assert_eq!(
        adapter.manifest["serving"]["map"],
        serde_json::json!(["=decoder"])
    );
    // The state keeps it: it need not be said again, and cannot be changed.
    expect(&run(&daemon, &[]), 0, &["nothing new"]);
    let other = run(&daemon, &["--map", "=encoder"]);
    expect(&other, 4, &["was begun with --map '=decoder'"]);
    let idle = run(&daemon, &["--map", "blok=decoder.block", "--out", "idle"]);
    expect(
        &idle,
        2,
        &["--map 'blok=decoder.block'", "'block.0.q' first"],
    );
    expect(
        &run(&daemon, &["--map", "block"]),
        2,
        &["PATTERN=REPLACEMENT"],
    );
}

#[test]
fn a_map_may_have_stars() {
    let weights: &[Weight<'_>] = &[("blocks.0.attention.q.weight", &[4, 8])];
    let daemon = daemon_with_model(None, weights);
    let class = [Metadata::new("qera.class", "Other")];
    record(&daemon, "a", &[("h.0.attn.q", 8)], &class);
    let stars = ["--map", "h.*.attn=blocks.*.attention"];
    expect(&run(&daemon, &stars), 0, &["1 layers corrected"]);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layers()[0]["name"], "blocks.0.attention.q");
    assert!(adapter.has("h.0.attn.q"));
}

/// Names of no relation are refused, with the option that relates them.
#[test]
fn unknown_names_are_refused_with_words_that_help() {
    let daemon = daemon_with_model(None, BLOOM);
    record(&daemon, "a", &[("blocks.0.up", 8)], &[]);
    expect(
        &run(&daemon, &[]),
        1,
        &["'blocks.0.up' names no weight", "--map PATTERN=REPLACEMENT"],
    );
}

/// What was gathered without a checkpoint gets its names when there is one.
#[test]
fn a_state_that_was_gathered_first_is_named_later() {
    let said = [
        Metadata::new("qera.shares", r#"[["m.h.0.a","m.h.0.b"]]"#),
        Metadata::new("qera.class", "Sided"),
    ];
    let weights: &[Weight<'_>] = &[("h.0.a.weight", &[4, 8]), ("h.0.b.weight", &[6, 8])];
    let config = Some(r#"{"model_type":"sided"}"#);
    let (gathered, at_once) = (
        daemon_with_model(config, weights),
        daemon_with_model(config, weights),
    );
    for daemon in [&gathered, &at_once] {
        record(daemon, "x", &[("m.h.0.a", 8)], &said);
    }
    let gather = [
        "--once",
        "--watch",
        "activations",
        "--rank",
        "2",
        "--block-size",
        "4",
    ];
    expect(&gathered.run(&gather), 0, &["holds the statistics"]);
    let solve =
        "solve --checkpoint checkpoint --rank 2 --block-size 4 --state qera-out/state --out s";
    let solve: Vec<&str> = solve.split(' ').collect();
    expect(&gathered.run(&solve), 0, &["2 layers corrected"]);
    expect(&run(&at_once, &[]), 0, &["2 layers corrected"]);
    let (one, other) = (gathered.adapter("s"), at_once.adapter("qera-out"));
    assert!(one.bytes == other.bytes);
    assert_eq!(one.layer("h.0.b")["recorded_as"], "m.h.0.b");
    let odd = gathered.run(&[&solve[..], &["--map", "m=n"]].concat());
    expect(
        &odd,
        4,
        &["'m.h.0.a' names no weight", "--map PATTERN=REPLACEMENT"],
    );
    // And a run continues from the state.
    record(&gathered, "y", &[("m.h.0.a", 8)], &said);
    expect(&run(&gathered, &[]), 0, &["2 layers corrected, 0 starved"]);
}

/// Without model_type nothing is joined by name, and the tap's word is always right.
#[test]
fn names_alone_join_nothing_where_the_model_is_not_listed() {
    // BLIP: key and value of a cross attention read the image, query the text.
    let path = "text_decoder.bert.encoder.layer.0.crossattention.self";
    let tensors = ["query", "key", "value"].map(|leaf| format!("{path}.{leaf}.weight"));
    let weights = tensors.each_ref().map(|name| (name.as_str(), &[4, 8][..]));
    let query = format!("{path}.query");
    for config in [None, Some(r#"{"model_type":"blip"}"#)] {
        let daemon = daemon_with_model(config, &weights);
        let class = [Metadata::new("qera.class", "BlipTextModel")];
        record(&daemon, "a", &[(&query, 8)], &class);
        expect(&run(&daemon, &[]), 0, &["1 layers corrected, 0 starved"]);
        let adapter = daemon.adapter("qera-out");
        assert!(adapter.has(&query) && !adapter.has(&format!("{path}.key")));
    }
    // EVA-02: w1 and w3 of other widths than a table would believe.
    let weights: &[Weight<'_>] = &[
        ("blocks.0.mlp.w1.weight", &[4, 8]),
        ("blocks.0.mlp.w3.weight", &[4, 12]),
    ];
    let daemon = daemon_with_model(None, weights);
    record(
        &daemon,
        "a",
        &[("blocks.0.mlp.w1", 8), ("blocks.0.mlp.w3", 12)],
        &[],
    );
    expect(
        &run(&daemon, &[]),
        0,
        &["2 layers on 2 sites", "2 layers corrected"],
    );
}

#[test]
fn the_tap_overrules_the_architecture() {
    let weights: &[Weight<'_>] = &[
        ("model.layers.0.self_attn.q_proj.weight", &[4, 8]),
        ("model.layers.0.self_attn.k_proj.weight", &[4, 8]),
    ];
    let [q, k] = ["q_proj", "k_proj"].map(|leaf| format!("model.layers.0.self_attn.{leaf}"));
    let daemon = daemon_with_model(Some(r#"{"model_type":"llama"}"#), weights);
    record(&daemon, "a", &[(&q, 8), (&k, 8)], &[]);
    let differ = run(&daemon, &[]);
    expect(&differ, 1, &["share one input but differ", "qera.shares"]);
    let apart = format!(r#"[["{q}"],["{k}"]]"#);
    record(
        &daemon,
        "a",
        &[(&q, 8), (&k, 8)],
        &[Metadata::new("qera.shares", &apart)],
    );
    expect(
        &run(&daemon, &[]),
        0,
        &["2 layers on 2 sites", "2 layers corrected"],
    );
}
