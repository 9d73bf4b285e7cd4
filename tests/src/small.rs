//! A small made checkpoint and its shards, for tests of what the daemon does with good and bad input.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::daemon::TestDaemon;
use crate::shards::{TensorToWrite, write};

/// [6, 8], on one site with [`K`].
pub const Q: &str = "model.layers.0.self_attn.q_proj";
/// [4, 8].
pub const K: &str = "model.layers.0.self_attn.k_proj";
/// [8, 12], on a site of its own.
pub const DOWN: &str = "model.layers.0.mlp.down_proj";
/// Arguments of the main job on [`small`].
pub const BASIC: [&str; 9] = [
    "--once",
    "--watch",
    "activations",
    "--checkpoint",
    "checkpoint",
    "--rank",
    "2",
    "--block-size",
    "4",
];

/// [`BASIC`] and more.
#[must_use]
pub fn with(extra: &[&'static str]) -> Vec<&'static str> {
    BASIC.iter().copied().chain(extra.iter().copied()).collect()
}

/// Smooth values of different sizes.
#[must_use]
pub fn wave(count: usize, phase: f32) -> Vec<f32> {
    (0..count)
        .map(|i| (i as f32 * 0.7 + phase).sin() * (1.0 + (i % 5) as f32))
        .collect()
}

/// q and k on one site, down on another, one norm, one embedding; four shards of 300 rows.
///
/// # Panics
/// When the folder cannot be written.
#[must_use]
pub fn small(binary: &str) -> TestDaemon {
    let daemon = TestDaemon::new(binary);
    fs::create_dir(daemon.path().join("activations")).unwrap();
    write_checkpoint(&daemon.path().join("checkpoint"), &wave(48, 0.0));
    for shard in 0..4 {
        let rows = wave(300 * 8, shard as f32);
        let deep = wave(300 * 12, 10.0 + shard as f32);
        let tensors = [
            TensorToWrite::f32(Q, &[300, 8], &rows),
            TensorToWrite::f32(DOWN, &[300, 12], &deep),
        ];
        write(
            &shard_path(&daemon, &format!("shard-{shard}")),
            &tensors,
            &[],
        );
    }
    daemon
}

/// Writes the checkpoint with these weights of [`Q`].
///
/// # Panics
/// When the folder cannot be written.
pub fn write_checkpoint(folder: &Path, q: &[f32]) {
    fs::create_dir_all(folder).unwrap();
    let tensors = [
        TensorToWrite::f32(&format!("{Q}.weight"), &[6, 8], q),
        TensorToWrite::f32(&format!("{K}.weight"), &[4, 8], &wave(32, 1.0)),
        TensorToWrite::f32(&format!("{DOWN}.weight"), &[8, 12], &wave(96, 2.0)),
        TensorToWrite::f32("model.norm.weight", &[8], &wave(8, 3.0)),
        TensorToWrite::f32("model.embed_tokens.weight", &[10, 8], &wave(80, 4.0)),
    ];
    write(&folder.join("model.safetensors"), &tensors, &[]);
}

/// Path of a shard in the watched folder.
#[must_use]
pub fn shard_path(daemon: &TestDaemon, name: &str) -> PathBuf {
    daemon
        .path()
        .join("activations")
        .join(format!("{name}.safetensors"))
}
