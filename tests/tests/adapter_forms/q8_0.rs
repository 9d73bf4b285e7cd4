//! `--dtype q8_0`: what is written in blocks, and what is not.

use std::fs;

use crate::{BINARY, current, json_of, once};
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::gguf_lora::{GgufLora, GgufLoraTensor};
use qera_tests::gguf_model::{GgufTestLayer, LAYERS, daemon_with_gguf};
use qera_tests::three_layers::{DOWN, Q, daemon_with_shards, once_with};
use serde_json::Value;

const GIVEN: [&str; 6] = [
    "--checkpoint",
    "checkpoint",
    "--quantized",
    "model.gguf",
    "--dtype",
    "q8_0",
];
const Q8_0: u32 = 8;

fn factors<'f>(gguf: &'f GgufLora, layer: &GgufTestLayer) -> [&'f GgufLoraTensor; 2] {
    ["a", "b"].map(|of| &gguf.tensors[&format!("{}.weight.lora_{of}", layer.tensor)])
}

/// C, rows of the output in the GGUF's order.
fn correction(gguf: &GgufLora, layer: &GgufTestLayer) -> Vec<f64> {
    let [a, b] = factors(gguf, layer);
    let (m, rank) = (layer.in_features, b.ne[0]);
    let at = |row: usize, i: usize| -> f64 {
        let terms = (0..rank).map(|k| {
            let (b, a) = (b.values[row * rank + k], a.values[k * m + i]);
            f64::from(b) * f64::from(a)
        });
        terms.sum()
    };
    let places = (0..layer.out_features).flat_map(|row| (0..m).map(move |i| (row, i)));
    places.map(|(row, i)| at(row, i)).collect()
}

fn layer_record(daemon: &TestDaemon, name: &str) -> Value {
    let manifest = json_of(daemon, "qera_manifest.json");
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().find(|of| of["name"] == name).unwrap().clone()
}

/// The same correction as in f32, in blocks, padded with zeros to 32.
#[test]
fn blocks_hold_the_correction() {
    let daemon = daemon_with_gguf(BINARY);
    let exact = [&GIVEN[..4], &["--dtype", "f32"]].concat();
    expect(&once(&daemon, &exact), 0, &[]);
    let in_f32 = GgufLora::load(&current(&daemon, "adapter.gguf"));
    let run = once(&daemon, &GIVEN);
    expect(&run, 0, &["published generation 2"]);
    let in_blocks = GgufLora::load(&current(&daemon, "adapter.gguf"));
    for layer in &LAYERS {
        let record = layer_record(&daemon, layer.module);
        assert_eq!(record["dtype"], "Q8_0", "{}", run.log);
        assert!(record["error"]["in_asked_dtype"].is_null());
        let [with, rounded] = ["with", "rounded"].map(|of| record["error"][of].as_f64().unwrap());
        let without = record["error"]["without"].as_f64().unwrap();
        assert!(
            rounded - with < (1e-3 * with).max(1e-6 * without),
            "{record}"
        );
        let [a, b] = factors(&in_blocks, layer);
        assert_eq!((a.type_number, b.type_number), (Q8_0, Q8_0));
        assert_eq!(a.ne, [layer.in_features, 32]);
        assert_eq!(b.ne, [32, layer.out_features]);
        let beyond = b.values.chunks(32).flat_map(|row| &row[4..]);
        let mut padding = a.values[4 * layer.in_features..].iter().chain(beyond);
        assert!(padding.all(|x| x.abs() <= 0.0));
        let [c, blocks] = [&in_f32, &in_blocks].map(|of| correction(of, layer));
        let norm = |of: &[f64]| of.iter().map(|x| x * x).sum::<f64>().sqrt();
        let apart: Vec<f64> = c.iter().zip(&blocks).map(|(x, y)| x - y).collect();
        let apart = norm(&apart) / norm(&c);
        assert!(apart > 0.0 && apart < 0.02, "{layer:?}: {apart}");
    }
    let settings = &json_of(&daemon, "qera_manifest.json")["settings"];
    assert_eq!(settings["dtype"], "Q8_0");
    let verify = daemon.run(&["verify", "--adapter", "qera-out/current"]);
    expect(&verify, 0, &[]);
}

/// From the state, in another type and back: the bytes are those of before.
#[test]
fn solve_writes_the_same_blocks() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&once(&daemon, &GIVEN), 0, &[]);
    let bytes = fs::read(current(&daemon, "adapter.gguf")).unwrap();
    let solve = [
        "solve",
        "--state",
        "qera-out/state",
        "--rank",
        "4",
        "--out",
        "other",
    ];
    expect(&daemon.run(&[&solve[..], &GIVEN].concat()), 0, &[]);
    let other = daemon.path().join("other/current/adapter.gguf");
    assert!(fs::read(other).unwrap() == bytes);
}

/// Rows of `lora_a` cannot be padded: what is no multiple of 32 wide is written f16.
#[test]
fn a_width_that_is_no_whole_blocks_is_written_f16_and_says_so() {
    let daemon = daemon_with_shards(BINARY);
    let config = r#"{"model_type":"llama","num_attention_heads":1,"num_key_value_heads":1}"#;
    fs::write(daemon.path().join("checkpoint/config.json"), config).unwrap();
    let in_blocks = ["--format", "gguf", "--dtype", "q8_0"];
    let run = daemon.run(&once_with(&in_blocks));
    expect(
        &run,
        0,
        &[
            "q_proj: written f16: in_features is 8, no multiple of q8_0's blocks of 32",
            "down_proj: written f16: in_features is 12, no",
        ],
    );
    for name in [Q, DOWN] {
        let record = layer_record(&daemon, name);
        assert_eq!(record["dtype"], "F16");
        assert_eq!(record["error"]["in_asked_dtype"], "no-whole-blocks");
    }
    let gguf = GgufLora::load(&current(&daemon, "adapter.gguf"));
    assert_eq!(gguf.tensors["blk.0.attn_q.weight.lora_b"].type_number, 1);
}

#[test]
fn a_form_without_such_blocks_is_refused() {
    let daemon = daemon_with_gguf(BINARY);
    for form in ["peft", "gguf,mlx"] {
        let run = once(&daemon, &[&GIVEN[..], &["--format", form]].concat());
        expect(&run, 2, &["--dtype q8_0: only a GGUF holds it"]);
    }
}
