//! A checkpoint of three small layers on two sites, and its shards: for tests of what the daemon
//! does with good and bad input.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::daemon::TestDaemon;
use crate::safetensors_file::{TensorToWrite, write_safetensors};

/// [6, 8], on one site with [`K`].
pub const Q: &str = "model.layers.0.self_attn.q_proj";
/// [4, 8].
pub const K: &str = "model.layers.0.self_attn.k_proj";
/// [8, 12], on a site of its own.
pub const DOWN: &str = "model.layers.0.mlp.down_proj";
/// Options of a live run on the checkpoint.
pub const LIVE_OPTIONS: [&str; 8] = [
    "--watch",
    "activations",
    "--checkpoint",
    "checkpoint",
    "--rank",
    "2",
    "--block-size",
    "4",
];
/// Shards that [`daemon_with_shards`] writes: `shard-0` and so on.
const SHARDS: usize = 4;
/// Rows of a shard.
pub const ROWS: usize = 300;

/// `--once`, [`LIVE_OPTIONS`] and more.
#[must_use]
pub fn once_with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--once"], &LIVE_OPTIONS[..], more].concat()
}

/// [`LIVE_OPTIONS`] and more.
#[must_use]
pub fn live_with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&LIVE_OPTIONS[..], more].concat()
}

/// Values of a sine, of different sizes.
#[must_use]
pub fn sine_values(count: usize, phase: f32) -> Vec<f32> {
    (0..count)
        .map(|i| (i as f32 * 0.7 + phase).sin() * (1.0 + (i % 5) as f32))
        .collect()
}

/// A daemon's folder with the checkpoint and an empty watched folder.
///
/// # Panics
/// When the folder cannot be written.
#[must_use]
pub fn daemon_without_shards(binary: &str) -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(binary);
    write_checkpoint(&daemon.path().join("checkpoint"), &sine_values(48, 0.0));
    daemon
}

/// A daemon's folder with the checkpoint and four shards of 300 rows for both sites.
///
/// # Panics
/// When the folder cannot be written.
#[must_use]
pub fn daemon_with_shards(binary: &str) -> TestDaemon {
    let daemon = daemon_without_shards(binary);
    for shard in 0..SHARDS {
        write_rows_of_both_sites(&daemon, &format!("shard-{shard}"), shard as f32);
    }
    daemon
}

/// Removes what [`daemon_with_shards`] wrote into the watched folder.
///
/// # Panics
/// When it is not there.
pub fn remove_shards(daemon: &TestDaemon) {
    for shard in 0..SHARDS {
        fs::remove_file(shard_path(daemon, &format!("shard-{shard}"))).unwrap();
    }
}

/// q and k on one site, down on another, one norm, one embedding; these weights of [`Q`].
///
/// # Panics
/// When the folder cannot be written.
pub fn write_checkpoint(folder: &Path, q: &[f32]) {
    fs::create_dir_all(folder).unwrap();
    let weight = |module: &str, shape: [usize; 2], phase: f32| {
        let values = sine_values(shape[0] * shape[1], phase);
        TensorToWrite::f32(&format!("{module}.weight"), &shape, &values)
    };
    let tensors = [
        TensorToWrite::f32(&format!("{Q}.weight"), &[6, 8], q),
        weight(K, [4, 8], 1.0),
        weight(DOWN, [8, 12], 2.0),
        TensorToWrite::f32("model.norm.weight", &[8], &sine_values(8, 3.0)),
        weight("model.embed_tokens", [10, 8], 4.0),
    ];
    write_safetensors(&folder.join("model.safetensors"), &tensors, &[]);
    // Joins k to q's input.
    fs::write(folder.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
}

/// A shard of 300 rows for both sites, renamed into the watched folder.
///
/// # Panics
/// When the folder cannot be written.
pub fn write_rows_of_both_sites(daemon: &TestDaemon, name: &str, phase: f32) {
    let deep = sine_values(ROWS * 12, 10.0 + phase);
    let tensors = [
        TensorToWrite::f32(Q, &[ROWS, 8], &sine_values(ROWS * 8, phase)),
        TensorToWrite::f32(DOWN, &[ROWS, 12], &deep),
    ];
    rename_in(daemon, name, &tensors);
}

/// Writes a shard aside, and renames it into the watched folder.
///
/// # Panics
/// When the folder cannot be written.
pub fn rename_in(daemon: &TestDaemon, name: &str, tensors: &[TensorToWrite]) {
    let aside = daemon.path().join("aside");
    write_safetensors(&aside, tensors, &[]);
    fs::rename(aside, shard_path(daemon, name)).unwrap();
}

/// Path of a shard in the watched folder.
#[must_use]
pub fn shard_path(daemon: &TestDaemon, name: &str) -> PathBuf {
    daemon.watched().join(format!("{name}.safetensors"))
}
