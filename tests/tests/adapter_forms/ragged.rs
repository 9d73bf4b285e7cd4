//! Each layer with its own rank.

use std::fs;

use crate::{BINARY, current, json_of, once};
use qera_tests::daemon::{TestDaemon, expect, expect_verdict};
use qera_tests::gguf_lora::GgufLora;
use qera_tests::gguf_model::{LAYERS, daemon_with_gguf};
use serde_json::json;

/// Ranks of [`LAYERS`].
const RANKS: [usize; 3] = [2, 4, 6];
const OPTIONS: [&str; 10] = [
    "--checkpoint",
    "checkpoint",
    "--quantized",
    "model.gguf",
    "--format",
    "peft,gguf,mlx",
    "--rank-for",
    "*q_proj=2",
    "--rank-for",
    "*down_proj=6",
];

/// A run without `--ragged`, followed by one with it.
fn daemon_with_both() -> TestDaemon {
    let daemon = daemon_with_gguf(BINARY);
    expect(&once(&daemon, &OPTIONS), 0, &[]);
    let ragged = [&OPTIONS[..], &["--ragged"]].concat();
    expect(&once(&daemon, &ragged), 0, &["published generation 2"]);
    daemon
}

#[test]
fn numbers_are_those_without_the_zeros() {
    let daemon = daemon_with_both();
    let old = daemon.path().join("qera-out/generations/000001");
    let padded = qera_tests::adapter::Adapter::load(&old);
    assert!(padded.manifest.get("ragged").is_none());
    assert_eq!(padded.config["rank_pattern"], json!({}));
    let adapter = daemon.adapter("qera-out");
    assert_eq!(adapter.manifest["ragged"], true);
    let gguf = GgufLora::load(&current(&daemon, "adapter.gguf"));
    let mlx = fs::read(current(&daemon, "mlx/adapters.safetensors")).unwrap();
    let mlx = safetensors::SafeTensors::deserialize(&mlx).unwrap();
    for (layer, rank) in LAYERS.iter().zip(RANKS) {
        let (own, all) = (adapter.factors(layer.module), padded.factors(layer.module));
        assert_eq!((own.rank, all.rank), (rank, 6), "{layer:?}");
        assert_eq!(own.lora_a, all.lora_a[..own.lora_a.len()]);
        let beyond = &all.lora_a[own.lora_a.len()..];
        assert!(beyond.iter().all(|a| a.abs() <= 0.0));
        let rows = all.lora_b.chunks(6).flat_map(|row| &row[..rank]);
        assert!(own.lora_b.iter().eq(rows), "{layer:?}");
        let b = &gguf.tensors[&format!("{}.weight.lora_b", layer.tensor)];
        assert_eq!(b.ne, [rank, layer.out_features]);
        // mlx-lm has one rank for all modules, as its configuration says.
        let a = mlx.tensor(&format!("{}.lora_a", layer.module)).unwrap();
        assert_eq!(a.shape(), [layer.in_features, 6]);
    }
    let config = json_of(&daemon, "mlx/adapter_config.json");
    assert_eq!(config["lora_parameters"]["rank"], 6);
    let readme = fs::read_to_string(current(&daemon, "README.md")).unwrap();
    assert!(readme.contains("each of its own rank, up to 6"), "{readme}");
}

/// mlx-lm knows one rank for all, and its file is the largest.
#[test]
fn the_largest_form_is_counted() {
    let daemon = daemon_with_both();
    let stored = |file: &str| {
        let bytes = fs::read(current(&daemon, file)).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        8.0 * (bytes.len() - 8 - usize::try_from(header).unwrap()) as f64
    };
    let weights = LAYERS.map(|layer| layer.in_features * layer.out_features);
    let weights = weights.iter().sum::<usize>() as f64;
    let expect_counted = |file: &str| {
        let manifest = json_of(&daemon, "qera_manifest.json");
        let counted = manifest["bits_per_weight"]["adapter"].as_f64().unwrap();
        let of_file = stored(file) / weights;
        assert!(
            (counted - of_file).abs() < 1e-9,
            "{file}: {counted} and {of_file}"
        );
    };
    expect_counted("mlx/adapters.safetensors");
    assert!(stored("adapter_model.safetensors") < stored("mlx/adapters.safetensors"));
    let alone = [
        &OPTIONS[..4],
        &["--format", "peft"],
        &OPTIONS[6..],
        &["--ragged"],
    ]
    .concat();
    expect(&once(&daemon, &alone), 0, &["published generation 3"]);
    expect_counted("adapter_model.safetensors");
}

#[test]
fn patterns_give_every_module_its_rank_and_a_scale_of_one() {
    let daemon = daemon_with_both();
    let adapter = daemon.adapter("qera-out");
    let (q, k) = (LAYERS[0].module, LAYERS[1].module);
    for key in ["rank_pattern", "alpha_pattern"] {
        assert_eq!(adapter.config[key], json!({q: 2, k: 4}), "{key}");
    }
    for key in ["r", "lora_alpha"] {
        assert_eq!(adapter.config[key], 6, "{key}");
    }
    let verify = ["verify", "--adapter", "qera-out/current"];
    expect_verdict(&daemon.run(&verify), 0, &["of rank 6 as peft, gguf, mlx"]);
    // Without its alpha a module would be scaled by 6 over its rank.
    let path = current(&daemon, "adapter_config.json");
    let mut config = adapter.config;
    config["alpha_pattern"] = json!({});
    fs::write(&path, config.to_string()).unwrap();
    let said = format!("{q}: lora_alpha and r scale its correction by 3");
    expect_verdict(&daemon.run(&verify), 1, &[&said]);
    config["rank_pattern"] = json!({k: 4});
    fs::write(&path, config.to_string()).unwrap();
    let said = format!("{q}: its pair has rank 2, adapter_config.json says 6");
    expect_verdict(&daemon.run(&verify), 1, &[&said]);
}
