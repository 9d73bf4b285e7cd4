//! What the daemon refuses before it starts, with the exit code and the words that name the cause.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::fs;
use std::path::Path;

use qera_tests::daemon::{Run, TestDaemon, expect};
use qera_tests::shards::{TensorToWrite, write};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
const MODULE: &str = "model.layers.0.self_attn.q_proj";
const BASIC: [&str; 5] = [
    "--once",
    "--watch",
    "activations",
    "--checkpoint",
    "checkpoint",
];

fn daemon() -> TestDaemon {
    let daemon = TestDaemon::new(BINARY);
    fs::create_dir(daemon.path().join("checkpoint")).unwrap();
    fs::create_dir(daemon.path().join("activations")).unwrap();
    weights(daemon.path(), "F32", &[4, 8], vec![1; 128]);
    let rows: Vec<f32> = (0..800).map(|i| (i as f32).sin()).collect();
    let shard = TensorToWrite::f32(MODULE, &[100, 8], &rows);
    write(
        &daemon.path().join("activations/a.safetensors"),
        &[shard],
        &[],
    );
    daemon
}

fn weights(folder: &Path, dtype: &str, shape: &[usize], bytes: Vec<u8>) {
    let tensor = TensorToWrite::new(&format!("{MODULE}.weight"), dtype, shape, bytes);
    write(&folder.join("checkpoint/model.safetensors"), &[tensor], &[]);
}

fn run(daemon: &TestDaemon, extra: &[&str]) -> Run {
    daemon.run(&[&BASIC[..], extra].concat())
}

#[test]
fn wrong_options_exit_2_with_the_valid_values() {
    let daemon = daemon();
    expect(
        &run(&daemon, &["--method", "best"]),
        2,
        &["best", "zeroquant-v2"],
    );
    expect(
        &run(&daemon, &["--quantizer", "int4"]),
        2,
        &["int4", "mxint4"],
    );
    expect(&run(&daemon, &["--after-convergence", "no"]), 2, &["stop"]);
    expect(&run(&daemon, &["--frobnicate"]), 2, &["frobnicate"]);
    expect(&run(&daemon, &["--shrinkage", "2"]), 2, &["shrinkage", "2"]);
    expect(&run(&daemon, &["--rank", "0"]), 2, &["rank"]);
    expect(&run(&daemon, &["--rank-for", "x"]), 2, &["GLOB=K"]);
    expect(
        &run(&daemon, &["--rank-for", "nothing*=3"]),
        2,
        &["nothing*", "matches no"],
    );
    expect(
        &run(&daemon, &["--rank", "18446744073709551615"]),
        2,
        &["--rank", "18446744073709551615"],
    );
    expect(
        &run(&daemon, &["--include", "nothing*"]),
        2,
        &["nothing*", "matches no"],
    );
    expect(&run(&daemon, &["--memory-budget", "lots"]), 2, &["lots"]);
    expect(
        &daemon.run(&["solve", "--state", "nowhere"]),
        2,
        &["--checkpoint"],
    );
    expect(
        &daemon.run(&["--once", "--checkpoint", "checkpoint"]),
        2,
        &["--watch"],
    );
    expect(
        &run(&daemon, &["--until-converged"]),
        2,
        &["--once", "--until-converged"],
    );
    fs::write(
        daemon.path().join("bad.toml"),
        "rank = 3\nmethods = \"exact\"\n",
    )
    .unwrap();
    expect(
        &run(&daemon, &["--config", "bad.toml"]),
        2,
        &["bad.toml", "methods"],
    );
    fs::write(daemon.path().join("bad.toml"), "method = \"best\"\n").unwrap();
    expect(
        &run(&daemon, &["--config", "bad.toml"]),
        2,
        &["method", "best", "approx"],
    );
    assert!(
        !daemon.path().join("qera-out").exists(),
        "nothing was started"
    );
}

#[test]
fn missing_inputs_exit_1_by_name() {
    let daemon = daemon();
    expect(
        &daemon.run(&["--once", "--watch", "nowhere", "--checkpoint", "checkpoint"]),
        1,
        &["nowhere"],
    );
    expect(
        &daemon.run(&[
            "--once",
            "--watch",
            "activations",
            "--checkpoint",
            "nowhere",
        ]),
        1,
        &["nowhere"],
    );
}

#[test]
fn a_checkpoint_that_cannot_serve_is_named() {
    let cases: [(&str, &[usize], usize, &[&str]); 2] = [
        ("I32", &[4, 8], 128, &["q_proj.weight", "I32", "BF16"]),
        ("F8_E4M3", &[4, 8], 32, &["q_proj.weight", "F8_E4M3"]),
    ];
    for (dtype, shape, bytes, said) in cases {
        let daemon = daemon();
        weights(daemon.path(), dtype, shape, vec![0; bytes]);
        expect(&run(&daemon, &[]), 1, said);
    }
    let daemon = daemon();
    weights(daemon.path(), "F32", &[2, 2, 8], vec![0; 128]);
    expect(
        &run(&daemon, &["--include", "*q_proj"]),
        1,
        &["q_proj.weight", "[2, 2, 8]"],
    );
    expect(&run(&daemon, &[]), 1, &["no 2-D linear weight"]);

    let mut nan = vec![0; 128];
    nan[4 * (8 + 3)..4 * (8 + 4)].copy_from_slice(&f32::NAN.to_le_bytes());
    weights(daemon.path(), "F32", &[4, 8], nan);
    let refused = run(&daemon, &[]);
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
        &run(&daemon, &[]),
        1,
        &["model.safetensors", "not a safetensors file"],
    );
    fs::remove_file(daemon.path().join("checkpoint/model.safetensors")).unwrap();
    expect(&run(&daemon, &[]), 1, &["holds neither"]);
}

#[test]
fn an_index_must_be_kept() {
    let daemon = daemon();
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
        &run(&daemon, &[]),
        1,
        &["model-00001-of-00002.safetensors", "missing"],
    );
    index("part.safetensors", "b.weight");
    expect(
        &run(&daemon, &[]),
        1,
        &["part.safetensors: lacks tensor 'b.weight'"],
    );
    index("part.safetensors", &format!("{MODULE}.weight"));
    expect(&run(&daemon, &["--emit-base"]), 0, &["1 layers corrected"]);
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

/// What an OUT folder holds of others is left alone, and what stands in the way is said before the work.
#[test]
fn the_out_folder_is_treated_with_care() {
    let daemon = daemon();
    let out = daemon.path().join("qera-out");
    fs::create_dir_all(out.join(".tmp-precious")).unwrap();
    fs::create_dir_all(out.join("generations/.qera-unfinished-1")).unwrap();
    expect(&run(&daemon, &[]), 0, &[]);
    assert!(
        out.join(".tmp-precious").is_dir() && !out.join("generations/.qera-unfinished-1").exists()
    );
    fs::remove_file(out.join("current")).unwrap();
    fs::create_dir(out.join("current")).unwrap();
    let refused = run(&daemon, &[]);
    expect(&refused, 4, &["current: is no symlink"]);
    assert!(!refused.log.contains("folded"));
}

/// A base belongs to all tensors of its checkpoint, not only to the corrected ones.
#[test]
fn a_stale_base_is_refused() {
    let daemon = daemon();
    let write_with = |norm: f32| {
        let tensors = [
            TensorToWrite::new(&format!("{MODULE}.weight"), "F32", &[4, 8], vec![1; 128]),
            TensorToWrite::f32("model.norm.weight", &[2], &[norm, f32::NEG_INFINITY]),
        ];
        write(
            &daemon.path().join("checkpoint/model.safetensors"),
            &tensors,
            &[],
        );
    };
    write_with(1.0);
    expect(&run(&daemon, &["--emit-base"]), 0, &[]);
    expect(&run(&daemon, &["--emit-base"]), 0, &["nothing new"]);
    let base = daemon.path().join("qera-out/base/model.safetensors");
    let bytes = fs::read(&base).unwrap();
    fs::write(&base, &bytes[..bytes.len() - 1]).unwrap();
    expect(
        &run(&daemon, &["--emit-base"]),
        4,
        &["model.safetensors is damaged: truncated"],
    );
    fs::write(&base, &bytes).unwrap();
    write_with(2.0);
    expect(&run(&daemon, &["--emit-base"]), 4, &["other weights"]);
}

#[test]
fn embeddings_and_tied_heads_are_refused_by_name() {
    let daemon = daemon();
    let tensors = [
        TensorToWrite::f32("lm_head.weight", &[4, 8], &[0.5; 32]),
        TensorToWrite::f32("model.embed_tokens.weight", &[4, 8], &[0.5; 32]),
    ];
    write(
        &daemon.path().join("checkpoint/model.safetensors"),
        &tensors,
        &[],
    );
    expect(
        &run(&daemon, &["--include", "model.embed_tokens"]),
        2,
        &["embed_tokens", "embedding"],
    );
    fs::write(
        daemon.path().join("checkpoint/config.json"),
        r#"{"tie_word_embeddings": true}"#,
    )
    .unwrap();
    expect(
        &run(&daemon, &["--include", "lm_head"]),
        2,
        &["lm_head", "tied"],
    );
}

#[test]
fn foreign_checkpoints_are_refused() {
    let daemon = daemon();
    let config = daemon.path().join("checkpoint/config.json");
    fs::write(
        &config,
        r#"{"quantization_config": {"quant_method": "gptq"}}"#,
    )
    .unwrap();
    expect(&run(&daemon, &[]), 1, &["quantization_config"]);
    fs::write(&config, r#"{"model_type": "gpt2"}"#).unwrap();
    expect(&run(&daemon, &[]), 1, &["gpt2", "Conv1D"]);
    fs::write(&config, "{").unwrap();
    expect(&run(&daemon, &[]), 1, &["config.json", "not JSON"]);
}

#[test]
fn what_does_not_fit_exits_5_before_anything_is_made() {
    let daemon = daemon();
    expect(
        &run(&daemon, &["--memory-budget", "1000"]),
        5,
        &["1000 B", "plan"],
    );
    assert!(!daemon.path().join("qera-out").exists());
    let plan = daemon.run(&[
        "plan",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
        "--memory-budget",
        "1000",
    ]);
    assert_eq!(plan.code, 5);
    for words in [MODULE, "statistics of all sites", "total", "GFlop"] {
        assert!(plan.output.contains(words), "{words}: {}", plan.output);
    }
    let json = daemon.run(&[
        "plan",
        "--watch",
        "activations",
        "--checkpoint",
        "checkpoint",
        "--log-format",
        "json",
    ]);
    let plan: serde_json::Value = serde_json::from_str(&json.output).unwrap();
    let stages = plan["stages"].as_array().unwrap();
    let sum: u64 = stages.iter().map(|s| s["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["total_bytes"], sum);
    assert_eq!(plan["sites"][0]["rows"], 100);
    assert_eq!(plan["sites"][0]["statistics_bytes"], 8 * (36 + 40));
}

#[test]
fn a_folder_in_use_exits_75() {
    let daemon = daemon();
    fs::create_dir(daemon.path().join("qera-out")).unwrap();
    let lock = fs::File::create(daemon.path().join("qera-out/.lock")).unwrap();
    lock.lock().unwrap();
    expect(&run(&daemon, &[]), 75, &["in use", ".lock"]);
    drop(lock);
    expect(&run(&daemon, &[]), 0, &[]);
}

#[test]
fn another_quantizer_refuses_the_base() {
    let daemon = daemon();
    expect(&run(&daemon, &["--emit-base"]), 0, &[]);
    let base = fs::read(daemon.path().join("qera-out/base/model.safetensors")).unwrap();
    expect(
        &run(&daemon, &["--emit-base", "--quantizer", "mxint3"]),
        4,
        &["mxint4/32", "mxint3/32"],
    );
    expect(&run(&daemon, &["--quantizer", "mxint3"]), 4, &["mxint4/32"]);
    expect(&run(&daemon, &[]), 0, &["nothing new"]);
    expect(&run(&daemon, &["--out", "bare"]), 0, &[]);
    expect(
        &run(&daemon, &["--out", "bare", "--quantizer", "mxint3"]),
        4,
        &["bare: its current generation corrects mxint4/32, this run uses mxint3/32"],
    );
    let readme = fs::read_to_string(daemon.path().join("qera-out/current/README.md")).unwrap();
    assert!(
        readme.contains("qera-out/base") && !readme.contains("full-precision"),
        "{readme}"
    );
    expect(
        &run(&daemon, &["--emit-base", "--method", "approx"]),
        0,
        &["generation 2"],
    );
    assert_eq!(
        base,
        fs::read(daemon.path().join("qera-out/base/model.safetensors")).unwrap()
    );
    let adapter = daemon.adapter("qera-out");
    let path = adapter.config["base_model_name_or_path"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(path.ends_with("qera-out/base"), "{path}");
    assert!(
        adapter.manifest["fingerprints"]["base"]
            .as_str()
            .unwrap()
            .starts_with("blake3:")
    );
}

#[test]
fn settings_are_shown_with_their_origin() {
    let daemon = daemon();
    fs::write(
        daemon.path().join("qera.toml"),
        "rank = 7\nrank-for = [\"*.mlp.*=3\"]\nmemory-budget = 123456\n",
    )
    .unwrap();
    let shown = daemon.run(&[
        "config",
        "--show",
        "--config",
        "qera.toml",
        "--method",
        "lqer",
    ]);
    assert_eq!(shown.code, 0, "{}", shown.log);
    for line in [
        "rank = 7",
        "method = \"lqer\"",
        "memory-budget = \"123456\"",
        "# command line",
        "# qera.toml",
        "# default",
    ] {
        assert!(shown.output.contains(line), "{line}: {}", shown.output);
    }
    // What is shown is itself a configuration.
    fs::write(daemon.path().join("again.toml"), &shown.output).unwrap();
    let again = daemon.run(&["config", "--show", "--config", "again.toml"]);
    assert!(again.output.contains("method = \"lqer\""));
}

#[test]
fn json_lines_are_json() {
    let daemon = daemon();
    let run = run(&daemon, &["--log-format", "json"]);
    expect(&run, 0, &[]);
    let events: Vec<serde_json::Value> = run
        .log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let named = |name: &str| events.iter().filter(|e| e["event"] == name).count();
    assert_eq!(
        (
            named("started"),
            named("shard-folded"),
            named("layer-solved"),
            named("published")
        ),
        (1, 1, 1, 1)
    );
}
