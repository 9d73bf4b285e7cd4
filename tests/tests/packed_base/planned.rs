//! `plan` says what the files will take, and they take it.

use std::fs;

use qera_tests::daemon::expect;
use serde_json::Value;

use crate::model::{BLOCK, LAYERS, daemon_with_block, run_once};

#[test]
fn what_is_planned_is_what_is_written() {
    let daemon = daemon_with_block();
    let plan = |more: &[&str]| {
        let options = "plan --watch activations --checkpoint checkpoint --rank 2";
        let options: Vec<&str> = options.split(' ').chain(more.iter().copied()).collect();
        daemon.run(&options)
    };
    let emits = ["--emit-base=compressed-tensors", "--block-size", "64"];
    let run = plan(&emits);
    assert_eq!(run.code, 0, "{}", run.log);
    for said in [
        "packed base: 6 layers, 4.28 bits a weight; ",
        &format!("not packed: {BLOCK}.mlp.down_proj: engines have no kernel"),
    ] {
        assert!(run.output.contains(said), "{said}: {}", run.output);
    }
    let refused = plan(&[
        "--emit-base=compressed-tensors",
        "--include",
        "*.down_proj",
        "--block-size",
        "128",
    ]);
    assert!(
        refused
            .output
            .contains("refused: --emit-base=compressed-tensors"),
        "{}",
        refused.output
    );
    let run = plan(&[&emits[..], &["--log-format", "json"]].concat());
    let planned: Value = serde_json::from_str(&run.output).unwrap();
    let planned = &planned["model"]["packed_base"];
    expect(&run_once(&daemon, &emits), 0, &[]);
    let folder = daemon.path().join("qera-out/base-compressed-tensors");
    let record = fs::read(folder.join("qera_base.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    for key in [
        "layers",
        "bits_per_weight",
        "bits_per_parameter",
        "bytes",
        "whole",
    ] {
        assert_eq!(planned[key], record["packed"][key], "{key}");
    }
    let file = fs::read(folder.join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(*file.first_chunk().unwrap()) + 8;
    let bytes = planned["bytes"].as_u64().unwrap();
    assert_eq!(bytes + header, file.len() as u64);
    // Codes, a scale for each 64 of them, and 16 bytes of shape.
    let packed = LAYERS.iter().filter(|layer| layer.in_features == 64);
    let numbers = packed.map(|layer| layer.out_features * 64).sum::<usize>() as f64;
    let bits = 4.0 + 16.0 / 64.0 + 6.0 * 128.0 / numbers;
    let found = planned["bits_per_weight"].as_f64().unwrap();
    assert!((found / bits - 1.0).abs() < 1e-12, "{found}, {bits}");
}
