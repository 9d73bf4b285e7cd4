//! `--format` and `--ragged`: an adapter as PEFT's files, as a GGUF LoRA and as mlx-lm's files has
//! the same numbers, and each is checked as its engine would load it.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod hostile;
mod numbers;
mod q8_0;
mod ragged;
mod refused;
mod republished;
mod verified;

use std::fs;
use std::path::PathBuf;

use qera_tests::daemon::{EndedRun, TestDaemon};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");

/// Runs the daemon with `--once` on the shards, and with more options.
fn once(daemon: &TestDaemon, more: &[&str]) -> EndedRun {
    let options = ["--once", "--watch", "activations", "--rank", "4"];
    daemon.run(&[&options[..], more].concat())
}

/// A file of the current generation.
fn current(daemon: &TestDaemon, file: &str) -> PathBuf {
    daemon.path().join("qera-out/current").join(file)
}

/// A JSON file of the current generation.
fn json_of(daemon: &TestDaemon, file: &str) -> Value {
    serde_json::from_slice(&fs::read(current(daemon, file)).unwrap()).unwrap()
}

/// A `config.json` that says the heads of [`qera_tests::gguf_model`]'s model.
fn write_config(daemon: &TestDaemon) {
    let config = r#"{"model_type":"llama","num_attention_heads":2,"num_key_value_heads":1}"#;
    fs::write(daemon.path().join("checkpoint/config.json"), config).unwrap();
}
