//! What is not served in this form is refused by name, before a row is read.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::sine_values;

use crate::BINARY;
use crate::model::{daemon_with_block, run_once};

const PACKED: &str = "--emit-base=compressed-tensors";

fn expect_refused(daemon: &TestDaemon, options: &[&str], said: &[&str]) {
    let run = run_once(daemon, &[&[PACKED], options].concat());
    expect(&run, 2, &[&[PACKED], said].concat());
    assert!(!run.log.contains("folded"), "{}", run.log);
}

#[test]
fn grids_and_groups_without_a_kernel() {
    let daemon = daemon_with_block();
    for (options, said) in [
        (
            &["--quantizer", "mxint3"][..],
            &["mxint3/32", "3 bits, only of 4 and of 8"][..],
        ),
        (&["--quantizer", "int2"], &["int2/32/f16", "2 bits"]),
        (&["--quantizer", "q4-0"], &["q4-0/32", "may be negative"]),
        (
            &["--block-size", "16"],
            &["mxint4/16", "groups of 16", "--block-size"],
        ),
        (
            &["--quantizer", "int8", "--zero-points"],
            &["int8/32/f16/zero-points", "8 bits with zero points"],
        ),
    ] {
        expect_refused(&daemon, options, said);
    }
    let unknown = run_once(&daemon, &["--emit-base=hf,gptq"]);
    expect(
        &unknown,
        2,
        &["--emit-base", "'gptq'", "compressed-tensors"],
    );
    assert!(!daemon.path().join("qera-out").exists());
}

#[test]
fn models_that_engines_would_not_read() {
    let daemon = daemon_with_block();
    let config = daemon.path().join("checkpoint/config.json");
    let layer = ["--include", "model.layers.0.mlp.down_proj"];
    expect_refused(
        &daemon,
        &[&layer[..], &["--block-size", "64"]].concat(),
        &[
            "no layer can be packed",
            "'model.layers.0.mlp.down_proj': engines have no kernel for 96 in",
        ],
    );
    fs::write(&config, "{}").unwrap();
    expect_refused(
        &daemon,
        &layer,
        &["checkpoint: has no config.json that says"],
    );
    fs::write(&config, r#"{"model_type": "gpt2"}"#).unwrap();
    let conv = "transformer.h.0.mlp.c_fc";
    let values = sine_values(64 * 96, 0.0);
    let tensor = TensorToWrite::f32(&format!("{conv}.weight"), &[64, 96], &values);
    let path = daemon.path().join("checkpoint/model.safetensors");
    write_safetensors(&path, &[tensor], &[]);
    let rows = TensorToWrite::f32(conv, &[50, 64], &sine_values(50 * 64, 0.0));
    write_safetensors(&daemon.watched().join("a.safetensors"), &[rows], &[]);
    expect_refused(&daemon, &[], &[&format!("'{conv}'"), "Conv1D"]);
    assert!(!daemon.path().join("qera-out/current").exists());
}

/// Somebody else's W~ is served as it lies there.
#[test]
fn beside_weights_that_were_given() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let options = [
        "--checkpoint",
        "x",
        "--quantized",
        "y.gguf",
        "--once",
        PACKED,
    ];
    let run = daemon.run(&[&["--watch", "activations"], &options[..]].concat());
    expect(
        &run,
        2,
        &["--emit-base: the quantized weights are those of --quantized"],
    );
}
