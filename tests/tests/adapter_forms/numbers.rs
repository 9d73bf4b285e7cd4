//! The numbers of every form, read by independent code, and what is said beside them.

use std::fs;
use std::path::Path;

use crate::{BINARY, current, json_of, once, write_config};
use qera_tests::adapter::{Adapter, LoraFactors};
use qera_tests::daemon::{TestDaemon, expect, expect_verdict};
use qera_tests::gguf_lora::GgufLora;
use qera_tests::gguf_model::{GgufTestLayer, LAYERS, daemon_with_gguf};
use safetensors::SafeTensors;
use serde_json::json;

const ALL: [&str; 2] = ["--format", "peft,gguf,mlx"];
/// The sources of W and W~: checkpoints and given models.
const SOURCES: [&[&str]; 4] = [
    &["--checkpoint", "checkpoint", "--quantized", "model.gguf"],
    &["--checkpoint", "full.gguf", "--quantized", "model.gguf"],
    &["--checkpoint", "checkpoint"],
    &["--checkpoint", "full.gguf"],
];

/// Rows of B in the order of the GGUF's tensor.
fn in_gguf_order(layer: &GgufTestLayer, factors: &LoraFactors) -> Vec<f32> {
    let of_rank = GgufTestLayer {
        in_features: factors.rank,
        ..*layer
    };
    of_rank.in_gguf_order(&factors.lora_b)
}

/// Transposes a matrix of this many rows, stored by columns.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    let at = |index: usize| values[index % rows * columns + index / rows];
    (0..values.len()).map(at).collect()
}

/// Holds the GGUF against PEFT's files.
fn assert_gguf(path: &Path, adapter: &Adapter, type_number: u32) {
    let gguf = GgufLora::load(path);
    for (key, value) in [
        ("general.type", "adapter"),
        ("general.architecture", "llama"),
        ("adapter.type", "lora"),
        ("qera.version", env!("CARGO_PKG_VERSION")),
        ("qera.generation", "1"),
    ] {
        assert_eq!(gguf.texts[key], value, "{key}");
    }
    let fingerprint = &adapter.manifest["fingerprints"]["checkpoint"];
    assert_eq!(*fingerprint, gguf.texts["qera.fingerprints.checkpoint"]);
    assert_eq!(gguf.floats["adapter.lora.alpha"].to_bits(), 0);
    assert_eq!(gguf.tensors.len(), 2 * LAYERS.len());
    for layer in &LAYERS {
        let factors = adapter.factors(layer.module);
        let tensor = |of: &str| &gguf.tensors[&format!("{}.weight.lora_{of}", layer.tensor)];
        let (a, b, rank) = (tensor("a"), tensor("b"), factors.rank);
        assert_eq!(a.ne, [layer.in_features, rank], "{layer:?}");
        assert_eq!(b.ne, [rank, layer.out_features], "{layer:?}");
        assert_eq!((a.type_number, b.type_number), (type_number, type_number));
        assert_eq!(a.values, factors.lora_a, "{layer:?}");
        assert_eq!(b.values, in_gguf_order(layer, &factors), "{layer:?}");
        if layer.heads > 0 {
            let said = "rows that stay where they are test nothing";
            assert_ne!(b.values, factors.lora_b, "{layer:?}: {said}");
        }
    }
}

/// Holds mlx-lm's files against PEFT's.
fn assert_mlx(daemon: &TestDaemon, adapter: &Adapter) {
    let config = json_of(daemon, "mlx/adapter_config.json");
    let keys = ["mlp.down_proj", "self_attn.k_proj", "self_attn.q_proj"];
    let parameters = json!({"rank": 4, "scale": 1.0, "dropout": 0.0, "keys": keys});
    let expected =
        json!({"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": parameters});
    assert_eq!(config, expected);
    let bytes = fs::read(current(daemon, "mlx/adapters.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 2 * LAYERS.len());
    for layer in &LAYERS {
        let factors = adapter.factors(layer.module);
        let (rank, m, n) = (factors.rank, layer.in_features, layer.out_features);
        for (of, shape, values) in [
            ("a", [m, rank], transposed(&factors.lora_a, rank)),
            ("b", [rank, n], transposed(&factors.lora_b, n)),
        ] {
            let tensor = file.tensor(&format!("{}.lora_{of}", layer.module)).unwrap();
            assert_eq!(tensor.shape(), shape, "{layer:?} {of}");
            let found = tensor.data().chunks_exact(2);
            let found = found.map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32());
            assert!(found.eq(values), "{layer:?} {of}");
        }
    }
}

#[test]
fn every_form_has_the_numbers_of_the_others() {
    for source in SOURCES {
        let daemon = daemon_with_gguf(BINARY);
        write_config(&daemon);
        expect(&once(&daemon, &[source, &ALL].concat()), 0, &[]);
        let adapter = daemon.adapter("qera-out");
        assert_eq!(adapter.manifest["forms"], json!(["peft", "gguf", "mlx"]));
        assert_gguf(&current(&daemon, "adapter.gguf"), &adapter, 1);
        assert_mlx(&daemon, &adapter);
        for layer in &LAYERS {
            let record = adapter.layer(layer.module);
            assert_eq!(record["gguf"]["tensor"], format!("{}.weight", layer.tensor));
            assert_eq!(record["mlx"], layer.module);
        }
        let verify = daemon.run(&["verify", "--adapter", "qera-out/current"]);
        expect_verdict(&verify, 0, &["as peft, gguf, mlx"]);
    }
}

#[test]
fn the_type_of_the_numbers_is_ggml_s() {
    for (dtype, number) in [("f32", 0), ("f16", 1), ("bf16", 30)] {
        let daemon = daemon_with_gguf(BINARY);
        let more = ["--format", "peft,gguf", "--dtype", dtype];
        expect(&once(&daemon, &[SOURCES[0], &more].concat()), 0, &[]);
        let adapter = daemon.adapter("qera-out");
        assert_gguf(&current(&daemon, "adapter.gguf"), &adapter, number);
    }
}

#[test]
fn beside_a_gguf_the_adapter_is_a_gguf() {
    let daemon = daemon_with_gguf(BINARY);
    expect(&once(&daemon, SOURCES[0]), 0, &["3 layers corrected"]);
    let files = fs::read_dir(current(&daemon, "")).unwrap();
    let mut files: Vec<_> = files.map(|of| of.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["README.md", "adapter.gguf", "qera_manifest.json"]);
    let manifest = json_of(&daemon, "qera_manifest.json");
    assert_eq!(manifest["forms"], json!(["gguf"]));
    let readme = fs::read_to_string(current(&daemon, "README.md")).unwrap();
    let adapter = daemon.path().join("qera-out/current/adapter.gguf");
    let adapter = adapter.display();
    for said in [
        format!("/model.gguf --lora {adapter}\n"),
        format!("/model.gguf\nADAPTER {adapter}\n"),
        "on no other".into(),
        "/model.gguf` corrected by method `exact`; rank 4.\n".into(),
    ] {
        assert!(readme.contains(&said), "{said}: {readme}");
    }
    for untrue in ["convert_lora_to_gguf", "peft", "lora_alpha", "mlx"] {
        assert!(!readme.contains(untrue), "{untrue}: {readme}");
    }
    let verify = daemon.run(&["verify", "--adapter", "qera-out/current"]);
    expect_verdict(&verify, 0, &["3 layers of rank 4 as gguf, on /"]);
}

#[test]
fn mlx_is_told_where_the_numbers_are() {
    let daemon = daemon_with_gguf(BINARY);
    let more = [
        "--checkpoint",
        "checkpoint",
        "--emit-base",
        "--format",
        "mlx",
    ];
    expect(&once(&daemon, &more), 0, &[]);
    let readme = fs::read_to_string(current(&daemon, "README.md")).unwrap();
    let out = daemon.path().join("qera-out");
    let (base, folder) = (out.join("base"), out.join("current/mlx"));
    let said = format!(
        "mlx_lm.server --model {} --adapter-path {}\n",
        base.display(),
        folder.display()
    );
    assert!(readme.contains(&said), "{said}: {readme}");
    let verify = daemon.run(&["verify", "--adapter", "qera-out/current"]);
    expect_verdict(&verify, 0, &["as mlx, on ", "qera-out/base"]);
}
