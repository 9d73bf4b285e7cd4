//! One layer that cannot be solved does not end the run: it goes out uncorrected, by name.

use std::fs;
use std::path::Path;

use qera_tests::adapter::Adapter;
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, rename_in, shard_path, sine_values,
};

use super::BINARY;

/// The three layers; the weights of [`K`], [4, 8], are so many times as large.
fn write_with(folder: &Path, factor: f32, phase: f32) {
    let k: Vec<f32> = sine_values(32, phase).iter().map(|w| w * factor).collect();
    let tensors = [
        TensorToWrite::f32(&format!("{Q}.weight"), &[6, 8], &sine_values(48, 0.0)),
        TensorToWrite::f32(&format!("{K}.weight"), &[4, 8], &k),
        TensorToWrite::f32(&format!("{DOWN}.weight"), &[8, 12], &sine_values(96, 2.0)),
    ];
    write_safetensors(&folder.join("model.safetensors"), &tensors, &[]);
}

/// Rows of q and k whose products with weights of 1e30 are no f32 numbers.
fn write_large_rows(daemon: &TestDaemon) {
    let large: Vec<f32> = sine_values(2400, 0.0).iter().map(|x| x * 1e8).collect();
    rename_in(
        daemon,
        "z-large",
        &[TensorToWrite::f32(Q, &[300, 8], &large)],
    );
}

fn with_large_weights() -> TestDaemon {
    let daemon = daemon_with_shards(BINARY);
    write_with(&daemon.path().join("checkpoint"), 1e30, 1.0);
    daemon
}

fn with_a_bad_layer() -> TestDaemon {
    let daemon = with_large_weights();
    write_large_rows(&daemon);
    daemon
}

const CANNOT: &str =
    "warning: model.layers.0.self_attn.k_proj: cannot be solved: products overflow";

#[test]
fn it_goes_out_uncorrected_and_the_rest_is_published() {
    let daemon = with_a_bad_layer();
    let run = daemon.run(&once_with(&[]));
    let said = [
        CANNOT,
        "it goes out uncorrected",
        "2 layers corrected, 0 starved",
        "1 layers that cannot be solved",
        "published generation 1",
    ];
    expect(&run, 3, &said);
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.layer(K)["status"], "failed");
    for module in [Q, DOWN] {
        assert_eq!(adapter.layer(module)["status"], "solved");
    }
    let targets = adapter.config["target_modules"].as_array().unwrap();
    assert!(!targets.contains(&"k_proj".into()), "{targets:?}");
    let status = daemon.status();
    let of_k = status["layers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|of| of["name"] == K);
    assert_eq!(of_k.unwrap()["status"], "failed");
    let verify = daemon.run(&["verify", "--adapter", "qera-out/current"]);
    assert_eq!(verify.code, 0, "{}", verify.output);

    // `solve` does the same with what was gathered.
    let solve = [
        &["solve"],
        &once_with(&["--out", "again", "--state", "qera-out/state"])[3..],
    ]
    .concat();
    expect(&daemon.run(&solve), 3, &[CANNOT, "2 layers corrected"]);
}

/// The others are what they are without it: DOWN has an input of its own.
#[test]
fn the_other_layers_do_not_know_of_it() {
    let (bad, good) = (with_a_bad_layer(), daemon_with_shards(BINARY));
    write_with(&good.path().join("checkpoint"), 1.0, 1.0);
    expect(&bad.run(&once_with(&[])), 3, &[]);
    expect(&good.run(&once_with(&[])), 0, &[]);
    let error = |daemon: &TestDaemon| daemon.adapter("qera-out").layer(DOWN)["error"].clone();
    assert_eq!(error(&bad), error(&good));
}

#[test]
fn where_there_is_no_rest_the_run_fails() {
    let daemon = with_a_bad_layer();
    let run = daemon.run(&once_with(&["--include", "*.k_proj"]));
    expect(
        &run,
        1,
        &["layer model.layers.0.self_attn.k_proj: products overflow"],
    );
    assert!(!daemon.path().join("qera-out/current").exists());
}

/// Whatever form the generation before was written in.
#[test]
fn it_keeps_a_correction_that_no_peft_file_has() {
    let peft = with_large_weights();
    expect(&peft.run(&once_with(&[])), 0, &[]);
    let before = peft.adapter("qera-out").factors(K);
    for form in ["gguf", "mlx"] {
        let daemon = with_large_weights();
        let config = r#"{"model_type":"llama","num_attention_heads":1}"#;
        fs::write(daemon.path().join("checkpoint/config.json"), config).unwrap();
        expect(&daemon.run(&once_with(&["--format", form])), 0, &[]);
        write_large_rows(&daemon);
        let run = daemon.run(&once_with(&["--format", "peft"]));
        expect(&run, 3, &[CANNOT, "it keeps its last correction"]);
        assert_eq!(daemon.adapter("qera-out").factors(K), before, "{form}");
    }
}

/// A layer keeps an earlier correction while W and W~ are the same.
#[test]
fn it_keeps_its_last_correction() {
    let daemon = with_large_weights();
    expect(&daemon.run(&once_with(&[])), 0, &["3 layers corrected"]);
    let before = daemon.adapter("qera-out");
    write_large_rows(&daemon);
    let run = daemon.run(&once_with(&[]));
    expect(
        &run,
        3,
        &[CANNOT, "it keeps its last correction", "3 layers corrected"],
    );
    let after = daemon.adapter("qera-out");
    assert_eq!(after.factors(K), before.factors(K));
    assert_ne!(after.factors(Q), before.factors(Q));
    let without_folding = |adapter: &Adapter| {
        let mut layer = adapter.layer(K).clone();
        layer["rows_skipped"] = 0.into();
        layer
    };
    assert_eq!(without_folding(&after), without_folding(&before));
    assert_eq!(
        daemon
            .run(&["verify", "--adapter", "qera-out/current"])
            .code,
        0
    );
    // And the same once more from there.
    fs::remove_file(shard_path(&daemon, "shard-0")).unwrap();
    rename_in(
        &daemon,
        "zz",
        &[TensorToWrite::f32(DOWN, &[1, 12], &sine_values(12, 0.0))],
    );
    expect(
        &daemon.run(&once_with(&[])),
        3,
        &["it keeps its last correction"],
    );
    assert_eq!(daemon.adapter("qera-out").factors(K), before.factors(K));

    // A correction of other weights is not kept.
    write_with(&daemon.path().join("checkpoint"), 1e30, 1.5);
    let run = daemon.run(&once_with(&["--new-checkpoint"]));
    expect(
        &run,
        3,
        &[CANNOT, "it goes out uncorrected", "2 layers corrected"],
    );
}
