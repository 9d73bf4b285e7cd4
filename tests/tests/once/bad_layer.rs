//! One layer that cannot be solved does not end the run: it goes out uncorrected, by name.

use std::path::Path;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{DOWN, K, Q, daemon_with_shards, once_with, sine_values};

use super::BINARY;

/// The three layers, with these weights of [`K`], [4, 8].
fn write_with(folder: &Path, k: &[f32]) {
    let tensors = [
        TensorToWrite::f32(&format!("{Q}.weight"), &[6, 8], &sine_values(48, 0.0)),
        TensorToWrite::f32(&format!("{K}.weight"), &[4, 8], k),
        TensorToWrite::f32(&format!("{DOWN}.weight"), &[8, 12], &sine_values(96, 2.0)),
    ];
    write_safetensors(&folder.join("model.safetensors"), &tensors, &[]);
}

fn with_a_bad_layer() -> TestDaemon {
    let daemon = daemon_with_shards(BINARY);
    let mut k = sine_values(32, 1.0);
    k[11] = 3e38;
    write_with(&daemon.path().join("checkpoint"), &k);
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
    write_with(&good.path().join("checkpoint"), &sine_values(32, 1.0));
    expect(&bad.run(&once_with(&[])), 3, &[]);
    expect(&good.run(&once_with(&[])), 0, &[]);
    let error = |daemon: &TestDaemon| daemon.adapter("qera-out").layer(DOWN)["error"].clone();
    assert_eq!(error(&bad), error(&good));
}

#[test]
fn where_there_is_no_rest_the_run_fails() {
    let daemon = daemon_with_shards(BINARY);
    let huge = vec![3e38; 32];
    write_with(&daemon.path().join("checkpoint"), &huge);
    let run = daemon.run(&once_with(&["--include", "*.k_proj"]));
    expect(
        &run,
        1,
        &["layer model.layers.0.self_attn.k_proj: products overflow"],
    );
    assert!(!daemon.path().join("qera-out/current").exists());
}
