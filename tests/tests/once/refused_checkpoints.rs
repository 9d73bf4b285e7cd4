//! Checkpoints that are refused by name before the run starts.

use std::fs;

use qera_tests::daemon::expect;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};

use super::one_layer::{MODULE, daemon_with_one_layer, run_once, write_weight};

#[test]
fn a_checkpoint_that_cannot_serve_is_named() {
    let cases: [(&str, &[usize], usize, &[&str]); 2] = [
        ("I32", &[4, 8], 128, &["q_proj.weight", "I32", "BF16"]),
        ("F8_E4M3", &[4, 8], 32, &["q_proj.weight", "F8_E4M3"]),
    ];
    for (dtype, shape, bytes, said) in cases {
        let daemon = daemon_with_one_layer();
        write_weight(daemon.path(), dtype, shape, vec![0; bytes]);
        expect(&run_once(&daemon, &[]), 1, said);
    }
    let daemon = daemon_with_one_layer();
    write_weight(daemon.path(), "F32", &[2, 2, 8], vec![0; 128]);
    expect(
        &run_once(&daemon, &["--include", "*q_proj"]),
        1,
        &["q_proj.weight", "[2, 2, 8]"],
    );
    expect(
        &run_once(&daemon, &[]),
        1,
        &["no shard names a linear layer"],
    );

    let mut nan = vec![0; 128];
    nan[4 * (8 + 3)..4 * (8 + 4)].copy_from_slice(&f32::NAN.to_le_bytes());
    write_weight(daemon.path(), "F32", &[4, 8], nan);
    let refused = run_once(&daemon, &[]);
    expect(
        &refused,
        1,
        &[
            "model.safetensors",
            "q_proj.weight",
            "NaN at row 1, column 3",
        ],
    );

    fs::write(
        daemon.path().join("checkpoint/model.safetensors"),
        b"not a checkpoint at all",
    )
    .unwrap();
    expect(
        &run_once(&daemon, &[]),
        1,
        &["model.safetensors", "not a safetensors file"],
    );
    fs::remove_file(daemon.path().join("checkpoint/model.safetensors")).unwrap();
    expect(&run_once(&daemon, &[]), 1, &["holds neither"]);
}

#[test]
fn an_index_must_be_kept() {
    let daemon = daemon_with_one_layer();
    let folder = daemon.path().join("checkpoint");
    fs::rename(
        folder.join("model.safetensors"),
        folder.join("part.safetensors"),
    )
    .unwrap();
    let index = |file: &str, tensor: &str| {
        let text = format!(r#"{{"weight_map": {{"{tensor}": "{file}"}}}}"#);
        fs::write(folder.join("model.safetensors.index.json"), text).unwrap();
    };
    index("model-00001-of-00002.safetensors", "a.weight");
    expect(
        &run_once(&daemon, &[]),
        1,
        &["model-00001-of-00002.safetensors", "missing"],
    );
    index("part.safetensors", "b.weight");
    expect(
        &run_once(&daemon, &[]),
        1,
        &["part.safetensors: lacks tensor 'b.weight'"],
    );
    index("part.safetensors", &format!("{MODULE}.weight"));
    expect(
        &run_once(&daemon, &["--emit-base"]),
        0,
        &["1 layers corrected"],
    );
    assert!(
        daemon
            .path()
            .join("qera-out/base/model.safetensors")
            .is_file()
    );
    let by_file = [
        "--once",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint/model.safetensors.index.json",
    ];
    expect(&daemon.run(&by_file), 0, &["nothing new"]);
}

#[test]
fn embeddings_and_tied_heads_are_refused_by_name() {
    let daemon = daemon_with_one_layer();
    let tensors = [
        TensorToWrite::f32("lm_head.weight", &[4, 8], &[0.5; 32]),
        TensorToWrite::f32("model.embed_tokens.weight", &[4, 8], &[0.5; 32]),
    ];
    write_safetensors(
        &daemon.path().join("checkpoint/model.safetensors"),
        &tensors,
        &[],
    );
    expect(
        &run_once(&daemon, &["--include", "model.embed_tokens"]),
        2,
        &["embed_tokens", "embedding"],
    );
    fs::write(
        daemon.path().join("checkpoint/config.json"),
        r#"{"tie_word_embeddings": true}"#,
    )
    .unwrap();
    expect(
        &run_once(&daemon, &["--include", "lm_head"]),
        2,
        &["lm_head", "tied"],
    );
}

#[test]
fn foreign_checkpoints_are_refused() {
    let daemon = daemon_with_one_layer();
    let config = daemon.path().join("checkpoint/config.json");
    fs::write(
        &config,
        r#"{"quantization_config": {"quant_method": "gptq"}}"#,
    )
    .unwrap();
    expect(&run_once(&daemon, &[]), 1, &["quantization_config"]);
    fs::write(&config, "{").unwrap();
    expect(&run_once(&daemon, &[]), 1, &["config.json", "not JSON"]);
}
