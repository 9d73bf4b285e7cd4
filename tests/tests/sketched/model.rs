//! A checkpoint with one wide input, which two layers share and which is sketched, and a narrow
//! one, which gathers R.

use std::fs;

use qera_core::pseudo_random::SplitMix64;
use qera_tests::daemon::TestDaemon;
use qera_tests::quantization::quantization_error;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::rename_in;

use crate::BINARY;

/// A layer on the same site as [`K`], which is sketched.
pub(crate) const Q: &str = "model.layers.0.self_attn.q_proj";
pub(crate) const K: &str = "model.layers.0.self_attn.k_proj";
/// A layer on a site that is not sketched: its R takes less memory than rows that wait.
pub(crate) const O: &str = "model.layers.0.self_attn.o_proj";
pub(crate) const WIDE: usize = 512;
const NARROW: usize = 64;
/// Outputs of [`Q`] and of [`K`].
pub(crate) const Q_OUT: usize = 24;
const K_OUT: usize = 16;
/// Rows of a shard.
pub(crate) const ROWS: usize = 300;
pub(crate) const SHARDS: usize = 4;

/// Options of every run.
const OPTIONS: [&str; 12] = [
    "--watch",
    "activations",
    "--checkpoint",
    "checkpoint",
    "--quantizer",
    "mxint3",
    "--rank",
    "4",
    "--statistics",
    "sketch",
    "--block-size",
    "32",
];

pub(crate) fn live<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&OPTIONS[..], more].concat()
}

pub(crate) fn once<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--once"], &OPTIONS[..], more].concat()
}

fn numbers(seed: u64, count: usize, width: usize) -> Vec<f32> {
    let mut sequence = SplitMix64::new(seed);
    // Channels of different size, and half of each row is like the one before.
    let mut row = vec![0.0; width];
    let mut values = Vec::with_capacity(count);
    for index in 0..count {
        let channel = index % width;
        let size = 1.0 / (1.0 + (channel % 37) as f64).sqrt();
        let fresh = sequence.next_symmetric() * size;
        row[channel] = 0.5 * row[channel] + fresh;
        #[expect(clippy::cast_possible_truncation, reason = "rows are f32")]
        values.push(row[channel] as f32);
    }
    values
}

/// W of a layer, [out_features, in_features].
fn weight(module: &str) -> (Vec<f32>, [usize; 2]) {
    let (seed, shape) = match module {
        Q => (1, [Q_OUT, WIDE]),
        K => (2, [K_OUT, WIDE]),
        _ => (3, [NARROW, NARROW]),
    };
    (numbers(seed, shape[0] * shape[1], shape[1]), shape)
}

/// E of the layer [`Q`] at three bits.
pub(crate) fn error_of_q() -> Vec<f32> {
    quantization_error(&weight(Q).0, WIDE, 3, 32)
}

/// Rows of a shard for both sites.
pub(crate) fn rows_of(shard: usize, width: usize) -> Vec<f32> {
    numbers(10 + shard as u64, ROWS * width, width)
}

/// A daemon's folder with the checkpoint and no shard.
pub(crate) fn without_shards() -> TestDaemon {
    with_checkpoint(1.0)
}

/// The same, where the weights of [`K`] are so many times as large.
pub(crate) fn with_checkpoint(factor_of_k: f32) -> TestDaemon {
    let daemon = TestDaemon::with_watched_folder(BINARY);
    let folder = daemon.path().join("checkpoint");
    fs::create_dir(&folder).unwrap();
    let tensors = [Q, K, O].map(|module| {
        let (mut values, shape) = weight(module);
        if module == K {
            values.iter_mut().for_each(|w| *w *= factor_of_k);
        }
        TensorToWrite::f32(&format!("{module}.weight"), &shape, &values)
    });
    write_safetensors(&folder.join("model.safetensors"), &tensors, &[]);
    fs::write(folder.join("config.json"), r#"{"model_type": "llama"}"#).unwrap();
    daemon
}

/// Some rows of a shard, renamed into the watched folder.
pub(crate) fn write_rows(
    daemon: &TestDaemon,
    name: &str,
    shard: usize,
    rows: core::ops::Range<usize>,
) {
    let tensor = |module: &str, width: usize| {
        let values = &rows_of(shard, width)[rows.start * width..rows.end * width];
        TensorToWrite::f32(module, &[rows.len(), width], values)
    };
    rename_in(daemon, name, &[tensor(Q, WIDE), tensor(O, NARROW)]);
}

/// One of the shards, with rows of the wide input that are so many times as large.
pub(crate) fn write_scaled(daemon: &TestDaemon, shard: usize, factor: f32) {
    let [mut wide, narrow] = [WIDE, NARROW].map(|width| rows_of(shard, width));
    wide.iter_mut().for_each(|x| *x *= factor);
    let tensors = [
        TensorToWrite::f32(Q, &[ROWS, WIDE], &wide),
        TensorToWrite::f32(O, &[ROWS, NARROW], &narrow),
    ];
    rename_in(daemon, &format!("shard-{shard}"), &tensors);
}

/// One of the shards.
pub(crate) fn write_shard(daemon: &TestDaemon, shard: usize) {
    write_rows(daemon, &format!("shard-{shard}"), shard, 0..ROWS);
}

/// With all shards.
pub(crate) fn with_shards() -> TestDaemon {
    let daemon = without_shards();
    (0..SHARDS).for_each(|shard| write_shard(&daemon, shard));
    daemon
}
