//! Which tensors are taken for linear layers, and which are left as they are.

use std::fs;
use std::path::Path;

use qera_tests::daemon::{EndedRun, TestDaemon, expect};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::sine_values;

use super::BINARY;

/// A weight of a made checkpoint: name of its tensor, shape.
pub(crate) type Weight<'a> = (&'a str, &'a [usize]);

/// A daemon's folder with a checkpoint of these tensors and this `config.json`.
pub(crate) fn daemon_with_model(config: Option<&str>, weights: &[Weight<'_>]) -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let folder = daemon.path().join("checkpoint");
    fs::create_dir_all(&folder).unwrap();
    let tensors: Vec<_> = (0_u8..)
        .zip(weights)
        .map(|(at, (name, shape))| {
            let values = sine_values(shape.iter().product(), f32::from(at));
            TensorToWrite::f32(name, shape, &values)
        })
        .collect();
    write_safetensors(&folder.join("model.safetensors"), &tensors, &[]);
    if let Some(config) = config {
        fs::write(folder.join("config.json"), config).unwrap();
    }
    daemon
}

/// Rows of these keys and widths, one shard, with this metadata.
pub(crate) fn record(
    daemon: &TestDaemon,
    name: &str,
    keys: &[(&str, usize)],
    said: &[Metadata<'_>],
) {
    let tensors: Vec<_> = (0_u8..)
        .zip(keys)
        .map(|(at, (key, width))| {
            let values = sine_values(300 * width, 7.0 + f32::from(at));
            TensorToWrite::f32(key, &[300, *width], &values)
        })
        .collect();
    let path = daemon.watched().join(format!("{name}.safetensors"));
    write_safetensors(&path, &tensors, said);
}

/// `--once` on them, and more.
pub(crate) fn run(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    let options = "--once --watch activations --checkpoint checkpoint --rank 2 --block-size 4";
    let options: Vec<&str> = options.split(' ').chain(more.iter().copied()).collect();
    daemon.run(&options)
}

/// Bytes of a tensor of a safetensors file.
fn stored(path: &Path, name: &str) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().to_vec()
}

const COHERE: &[Weight<'_>] = &[
    ("model.layers.0.self_attn.q_norm.weight", &[2, 4]),
    ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
    ("model.layers.0.mlp.experts.gate_up_proj", &[2, 8, 6]),
    ("model.codebook.weight", &[6, 8]),
    ("model.embed_tokens.weight", &[9, 8]),
];

/// [llama.cpp PR 6491] A norm of two dimensions, a codebook, fused experts: none is an nn.Linear
/// that a shard named, so that none is quantized, none is in the adapter, and all are said.
#[test]
fn what_nobody_calls_linear_is_left_as_it_is() {
    let daemon = daemon_with_model(Some(r#"{"model_type": "cohere"}"#), COHERE);
    record(&daemon, "a", &[("model.layers.0.self_attn.q_proj", 8)], &[]);
    let ended = run(&daemon, &["--emit-base"]);
    expect(
        &ended,
        0,
        &[
            "1 layers corrected, 0 starved",
            "q_norm",
            "codebook",
            "gate_up_proj",
        ],
    );
    let adapter = daemon.adapter("qera-out");
    assert_eq!(
        adapter.config["target_modules"],
        serde_json::json!(["q_proj"])
    );
    let base = daemon.path().join("qera-out/base/model.safetensors");
    let original = daemon.path().join("checkpoint/model.safetensors");
    for (name, _) in COHERE {
        let same = stored(&base, name) == stored(&original, name);
        assert_eq!(same, !name.contains("q_proj"), "{name}");
    }
    let passed_over = adapter.manifest["passed_over"].as_array().unwrap();
    let fused = passed_over
        .iter()
        .find(|of| of["tensors"] == "model.layers.0.mlp.experts.gate_up_proj")
        .unwrap();
    let share = 96.0 / f64::from(8 + 64 + 96 + 48 + 72);
    assert!((fused["share"].as_f64().unwrap() - share).abs() < 1e-12);
    assert!(fused["why"].as_str().unwrap().contains("not corrected"));
    assert_eq!(passed_over.len(), 4);
    let plan = daemon.run(&[
        "plan",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
    ]);
    assert!(
        plan.output.contains("q_norm") && plan.output.contains("codebook"),
        "{}",
        plan.output
    );
}

#[test]
fn a_full_include_makes_a_layer_and_the_defaults_say_how_to_name_one() {
    let daemon = daemon_with_model(None, COHERE);
    record(&daemon, "a", &[("model.layers.0.self_attn.q_proj", 8)], &[]);
    expect(
        &run(&daemon, &["--include", "*embed*"]),
        2,
        &["model.embed_tokens", "left out by default, name it in full"],
    );
    expect(
        &run(&daemon, &["--include", "*codebook"]),
        2,
        &["model.codebook", "known to be a linear layer"],
    );
    let named = ["--include", "model.codebook", "--include", "*q_proj"];
    expect(&run(&daemon, &named), 0, &["1 layers corrected, 1 starved"]);
    assert!(!daemon.adapter("qera-out").has("model.codebook"));
}

/// Embeddings are known by their last name, not by "embed" anywhere in the path.
#[test]
fn a_linear_layer_within_an_embedder_is_one() {
    let name = "model.vision_embed_tokens.img_projection.0";
    let daemon = daemon_with_model(None, &[(&format!("{name}.weight"), &[4, 8])]);
    record(&daemon, "a", &[(name, 8)], &[]);
    expect(&run(&daemon, &[]), 0, &["1 layers corrected"]);
    // '0' would also mean the first of any list of modules.
    let targets = serde_json::json!([name]);
    assert_eq!(daemon.adapter("qera-out").config["target_modules"], targets);
}

/// [ms-swift 2640] A last name is used only where it means corrected modules alone.
#[test]
fn full_names_are_used_where_a_last_name_means_more() {
    let weights: &[Weight<'_>] = &[
        ("layers.0.fc.weight", &[4, 8]),
        ("layers.1.fc.weight", &[4, 8]),
        ("layers.0.up.weight", &[4, 8]),
    ];
    let daemon = daemon_with_model(None, weights);
    record(&daemon, "a", &[("layers.0.fc", 8), ("layers.0.up", 8)], &[]);
    expect(
        &run(&daemon, &[]),
        0,
        &["2 layers corrected", "layers.1.fc.weight"],
    );
    let targets = serde_json::json!(["layers.0.fc", "up"]);
    assert_eq!(daemon.adapter("qera-out").config["target_modules"], targets);
}

/// The set of linear layers is fixed by the first listing that accepts a shard.
#[test]
fn a_linear_layer_that_is_named_later_is_quarantined() {
    let weights: &[Weight<'_>] = &[("a.weight", &[4, 8]), ("b.weight", &[4, 8])];
    let daemon = daemon_with_model(None, weights);
    record(&daemon, "0", &[("a", 8)], &[]);
    expect(&run(&daemon, &[]), 0, &["1 layers corrected"]);
    record(&daemon, "1", &[("a", 8), ("b", 8)], &[]);
    let listed = [Metadata::new(
        "qera.linears",
        r#"[{"name":"b","in":8,"out":4}]"#,
    )];
    record(&daemon, "2", &[("a", 8)], &listed);
    let shares = [Metadata::new("qera.shares", r#"[["a","b"]]"#)];
    record(&daemon, "3", &[("a", 8)], &shares);
    let ended = run(&daemon, &[]);
    let said = [
        "'b' is a linear layer that the first shards did not name",
        "qera.linears",
    ];
    expect(&ended, 3, &said);
    for shard in ["1", "2", "3"] {
        let refused = format!("shard {shard}.safetensors: 'b' is a linear layer");
        assert!(ended.log.contains(&refused), "{}", ended.log);
    }
    // Where all were listed from the start, rows of it count whenever they come.
    let both = r#"[{"name":"b","in":8,"out":4},{"name":"a","in":8,"out":4}]"#;
    let listed = [Metadata::new("qera.linears", both)];
    record(&daemon, "0", &[("a", 8)], &listed);
    let anew = ["--out", "anew"];
    fs::remove_file(daemon.watched().join("3.safetensors")).unwrap();
    fs::remove_file(daemon.watched().join("1.safetensors")).unwrap();
    expect(&run(&daemon, &anew), 0, &["1 layers corrected, 1 starved"]);
    record(&daemon, "1", &[("a", 8), ("b", 8)], &[]);
    expect(&run(&daemon, &anew), 0, &["2 layers corrected, 0 starved"]);
}

/// A hole in a checkpoint is not passed over in silence.
#[test]
fn a_linear_layer_that_the_checkpoint_lacks_is_named() {
    let daemon = daemon_with_model(None, &[("a.weight", &[4, 8])]);
    let listed = r#"[{"name":"a","in":8,"out":4},{"name":"b","in":8,"out":6},
        {"name":"lm_head","in":8,"out":20}]"#;
    record(
        &daemon,
        "0",
        &[("a", 8)],
        &[Metadata::new("qera.linears", listed)],
    );
    let why = "the checkpoint has no such tensor";
    let ended = run(&daemon, &[]);
    expect(&ended, 0, &["1 layers corrected", "b.weight", why]);
    assert!(!ended.log.contains("lm_head"), "{}", ended.log);
    let passed_over = daemon.manifest("qera-out")["passed_over"].clone();
    assert_eq!(passed_over[0]["tensors"], "b.weight", "{passed_over}");
    let plan = "plan --watch activations --checkpoint checkpoint --rank 2 --block-size 4";
    let plan: Vec<&str> = plan.split(' ').collect();
    let plan = daemon.run(&plan).output;
    assert!(plan.contains("b.weight") && plan.contains(why), "{plan}");
    expect(&run(&daemon, &["--exclude", "b", "--out", "other"]), 0, &[]);
}

/// A method that needs no rows takes the listed architecture's layers.
#[test]
fn a_method_without_rows_takes_the_architectures_list() {
    let weights: &[Weight<'_>] = &[
        ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
        ("model.layers.0.mlp.down_proj.weight", &[8, 12]),
        ("model.layers.0.mlp.other.weight", &[8, 12]),
    ];
    let daemon = daemon_with_model(Some(r#"{"model_type": "llama"}"#), weights);
    record(&daemon, "a", &[("model.layers.0.self_attn.q_proj", 8)], &[]);
    let ended = run(&daemon, &["--method", "zeroquant-v2"]);
    expect(
        &ended,
        0,
        &[
            "2 layers on 2 sites",
            "1 starved",
            "model.layers.0.mlp.other.weight",
        ],
    );
}

#[test]
fn what_the_shards_list_must_fit_the_checkpoint_and_each_other() {
    let cases = [
        ("[1]", "not a list of"),
        (
            r#"[{"name":"a","in":4,"out":9}]"#,
            "'a' is 4 in, 9 out, and its weight has shape [4, 8]",
        ),
        (r#"[{"name":"a","in":8}]"#, "missing field `out`"),
    ];
    for (linears, said) in cases {
        let daemon = daemon_with_model(None, &[("a.weight", &[4, 8])]);
        record(&daemon, "good", &[("a", 8)], &[]);
        record(
            &daemon,
            "other",
            &[("a", 8)],
            &[Metadata::new("qera.linears", linears)],
        );
        let ended = run(&daemon, &[]);
        expect(&ended, 3, &[said, "1 shards folded, 1 quarantined"]);
    }
    let daemon = daemon_with_model(None, &[("a.weight", &[8, 8])]);
    for (shard, transposed) in [("0", "true"), ("1", "false")] {
        let linears = format!(r#"[{{"name":"a","in":8,"out":8,"transposed":{transposed}}}]"#);
        let listed = [Metadata::new("qera.linears", &linears)];
        record(&daemon, shard, &[("a", 8)], &listed);
    }
    expect(
        &run(&daemon, &[]),
        3,
        &["by other shards", "1 shards folded, 1 quarantined"],
    );
    // The same, when the first was folded before the second comes.
    expect(
        &run(&daemon, &[]),
        3,
        &["'a' is 8 in, 8 out, not transposed here"],
    );
}

/// A shard that is refused for its own faults decides nothing, whatever it sorts before.
#[test]
fn a_foreign_shard_that_comes_first_decides_nothing() {
    let weights: &[Weight<'_>] = &[("m.a.weight", &[4, 8]), ("m.b.weight", &[4, 8])];
    let daemon = daemon_with_model(None, weights);
    let foreign = [
        Metadata::new("qera.model", "another"),
        Metadata::new("qera.class", "Another"),
        Metadata::new("qera.linears", r#"[{"name":"m.a","in":9,"out":4}]"#),
    ];
    record(&daemon, "0", &[("m.a", 8)], &foreign);
    // Nothing of it counts either: it has no key that is selected.
    record(&daemon, "1", &[("lm_head", 8)], &[]);
    let half =
        r#"[{"name":"m.a","in":8,"out":4,"transposed":false},{"name":"m.b","in":9,"out":4}]"#;
    record(
        &daemon,
        "2",
        &[("m.a", 8)],
        &[Metadata::new("qera.linears", half)],
    );
    let good = [Metadata::new("qera.class", "Good")];
    for shard in ["3", "4", "5"] {
        record(&daemon, shard, &[("x.m.a", 8), ("x.m.b", 8)], &good);
    }
    let ended = run(&daemon, &[]);
    expect(&ended, 3, &["2 layers corrected", "2 quarantined"]);
    assert_eq!(
        daemon.adapter("qera-out").manifest["serving"]["class"],
        "Good"
    );
}

/// Rows of a weight that is no matrix are ignored, at first and later.
#[test]
fn a_key_of_a_convolution_is_ignored() {
    let weights: &[Weight<'_>] = &[("a.weight", &[4, 8]), ("conv.weight", &[4, 2, 8])];
    let daemon = daemon_with_model(None, weights);
    for (shard, keys) in [("0", ["a", "conv"]), ("1", ["conv", "a"])] {
        record(&daemon, shard, &keys.map(|key| (key, 8)), &[]);
        let ignored = ["1 keys of modules not selected ignored"];
        expect(&run(&daemon, &[]), 0, &ignored);
    }
}

/// A width that no layer has would make sums overflow: it is set aside, also by the next run.
#[test]
fn an_absurd_width_is_set_aside() {
    let daemon = daemon_with_model(None, &[("a.weight", &[4, 8])]);
    let absurd = TensorToWrite::f32("x", &[0, 1 << 62], &[]);
    write_safetensors(&daemon.watched().join("x.safetensors"), &[absurd], &[]);
    record(&daemon, "y", &[("a", 8)], &[]);
    let gather = ["--once", "--watch", "activations"];
    expect(
        &daemon.run(&gather),
        3,
        &["no layer is as wide", "folded y.safetensors"],
    );
    expect(&daemon.run(&gather), 3, &["no layer is as wide"]);
}
