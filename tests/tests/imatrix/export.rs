//! A state's statistics as an imatrix.

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::imatrix_file::{FoundTensor, read_gguf_imatrix};
use qera_tests::safetensors_file::{Metadata, TensorToWrite, write_safetensors};
use qera_tests::three_layers::{
    DOWN, K, Q, daemon_with_shards, once_with, sine_values, write_checkpoint,
};

use super::{BINARY, DOWN_TENSOR, K_TENSOR, LAYERS, Q_TENSOR, ROWS, alone_with, rows_of};

const EXPORT: [&str; 6] = [
    "export",
    "imatrix",
    "--state",
    "qera-out/state",
    "--out",
    "out.gguf",
];

/// Sums over rows of a power of each channel.
fn sums(rows: &[f32], width: usize, power: i32) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for row in rows.chunks_exact(width) {
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, x)| *sum += f64::from(*x).powi(power));
    }
    sums
}

fn exported(daemon: &TestDaemon) -> qera_tests::imatrix_file::FoundImatrix {
    read_gguf_imatrix(&fs::read(daemon.path().join("out.gguf")).unwrap())
}

#[test]
fn the_sums_are_those_of_the_rows_and_make_the_same_adapter() {
    let daemon = daemon_with_shards(BINARY);
    let approx = once_with(&["--method", "approx"]);
    expect(&daemon.run(&approx), 0, &["3 layers corrected"]);
    let options = [&EXPORT[..], &["--checkpoint", "checkpoint"]].concat();
    let said = ["imatrix written: out.gguf (3 entries; 4 shards, 1200 rows at most)"];
    expect(&daemon.run(&options), 0, &said);
    let found = exported(&daemon);
    let meta = |key: &str| found.metadata[key].as_str();
    assert_eq!(meta("general.type"), "imatrix");
    assert_eq!(meta("imatrix.datasets"), "qera, 4 shards");
    assert_eq!(meta("imatrix.chunk_count"), "4");
    assert_eq!(meta("imatrix.chunk_size"), "300");
    assert!(found.names.is_sorted(), "{:?}", found.names);
    assert_eq!(found.tensors.len(), 9);
    for (_, tensor, width) in LAYERS {
        let rows = rows_of(width);
        let part = |name: &str| &found.tensors[&format!("{tensor}.{name}")];
        let FoundTensor { ne, values } = part("counts");
        assert_eq!((&ne[..], &values[..]), (&[1, 1][..], &[1200.0][..]));
        for (name, power) in [("in_sum2", 2), ("in_sum", 1)] {
            let FoundTensor { ne, values } = part(name);
            assert_eq!(ne[..], [width as u64, 1]);
            let expected = sums(&rows, width, power);
            let largest = sums(&rows, width, 2).into_iter().fold(0.0, f64::max);
            for (found, expected) in values.iter().zip(expected) {
                let apart = (f64::from(*found) - expected).abs();
                // f32 in the file.
                assert!(apart <= 1e-7 * expected.abs() + 1e-12 * largest, "{name}");
            }
        }
    }
    // A file that is there is replaced, a folder is not.
    expect(&daemon.run(&options), 0, &said);
    let run = daemon.run(&alone_with("out.gguf", &["--out", "again"]));
    expect(&run, 0, &["3 by an imatrix"]);
    let (rows, again) = (daemon.adapter("qera-out"), daemon.adapter("again"));
    for (module, ..) in LAYERS {
        let pair = [&rows, &again].map(|of| of.factors(module));
        let [a, b] = &pair;
        let largest = a.values().fold(0.0_f32, |most, x| most.max(x.abs()));
        for (x, y) in a.values().zip(b.values()) {
            // Half a last place of f16, and a hair.
            assert!((x - y).abs() <= 1e-3 * largest, "{module}: {x} {y}");
        }
    }
}

#[test]
fn names_of_llama_cpp_need_no_checkpoint() {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let rows = sine_values(ROWS * 8, 0.0);
    let tensor = TensorToWrite::f32("blk.0.attn_q", &[ROWS, 8], &rows);
    let shares = r#"[["blk.0.attn_q", "blk.0.attn_k"]]"#;
    let path = daemon.watched().join("a.safetensors");
    write_safetensors(&path, &[tensor], &[Metadata::new("qera.shares", shares)]);
    expect(&daemon.run(&["--once", "--watch", "activations"]), 0, &[]);
    expect(&daemon.run(&EXPORT), 0, &["2 entries; 1 shards, 300 rows"]);
    let found = exported(&daemon);
    let part = |tensor: &str| &found.tensors[&format!("{tensor}.in_sum2")];
    assert_eq!(part(Q_TENSOR), part(K_TENSOR));
    let expected = sums(&rows, 8, 2);
    for (found, expected) in part(Q_TENSOR).values.iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() <= 1e-7 * expected);
    }
    assert!(
        !found
            .tensors
            .contains_key(&format!("{DOWN_TENSOR}.in_sum2"))
    );
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let daemon = daemon_with_shards(BINARY);
    let run = |options: &[&str]| daemon.run(options);
    let none = "holds no statistics";
    expect(&run(&EXPORT), 4, &[none]);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    let names = "names that are not GGUF's ('model.layers.0.mlp.down_proj')";
    expect(&run(&EXPORT), 2, &["--checkpoint PATH is needed", names]);
    expect(&run(&EXPORT[..4]), 2, &["--out FILE is needed"]);
    let stateless = [&EXPORT[..2], &EXPORT[4..]].concat();
    expect(&run(&stateless), 2, &["--state DIR is needed"]);
    let folder = [&EXPORT[..5], &["checkpoint", "--checkpoint", "checkpoint"]].concat();
    expect(&run(&folder), 2, &["--out checkpoint: is a folder"]);
    assert!(daemon.path().join("checkpoint/model.safetensors").exists());
    assert!(!daemon.path().join("out.gguf").exists());
    // The names of layers of a model that is not listed are unknown in GGUF.
    fs::write(
        daemon.path().join("checkpoint/config.json"),
        r#"{"model_type": "none"}"#,
    )
    .unwrap();
    let options = [&EXPORT[..], &["--checkpoint", "checkpoint"]].concat();
    let said = ["not of a kind whose names in GGUF are known"];
    expect(
        &run(&[&options[..], &["--include", Q, "--include", K]].concat()),
        4,
        &said,
    );
}

#[test]
fn another_checkpoint_is_refused() {
    let daemon = daemon_with_shards(BINARY);
    expect(&daemon.run(&once_with(&[])), 0, &[]);
    // Another checkpoint with the same names and widths.
    write_checkpoint(&daemon.path().join("other"), &[0.5; 48]);
    let other = [&EXPORT[..], &["--checkpoint", "other"]].concat();
    let said = ["belongs to another checkpoint", "other is", "gathered with"];
    expect(&daemon.run(&other), 4, &said);
    // A state that was gathered without a checkpoint, and layers of other widths.
    let bare = ["--once", "--watch", "activations", "--state", "bare"];
    expect(&daemon.run(&bare), 0, &[]);
    let wide = TensorToWrite::f32(&format!("{Q}.weight"), &[6, 10], &[0.5; 60]);
    let narrow = TensorToWrite::f32(&format!("{DOWN}.weight"), &[8, 12], &[0.5; 96]);
    let file = daemon.path().join("other/model.safetensors");
    write_safetensors(&file, &[wide, narrow], &[]);
    let of = |checkpoint: &'static str| {
        let state = ["--state", "bare", "--out", "out.gguf"];
        daemon.run(&[&EXPORT[..2], &state, &["--checkpoint", checkpoint]].concat())
    };
    let widths = format!("holds statistics of {Q} with in_features 8, the checkpoint's {Q} has 10");
    expect(&of("other"), 4, &[&widths]);
    assert!(!daemon.path().join("out.gguf").exists());
    expect(&of("checkpoint"), 0, &["imatrix written"]);
}
