//! `--imatrix`: alone, beside a watched folder, and back out of a state. Files are written and read
//! by the tests' own code.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod alone;
mod beside;
mod export;
mod refusals;

use std::fs;

use qera_tests::daemon::TestDaemon;
use qera_tests::imatrix_file::{ImatrixEntry, gguf_imatrix};
use qera_tests::three_layers::{DOWN, K, Q, sine_values};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// Rows of a shard of `three_layers`.
const ROWS: usize = 300;
/// Shards that it writes.
const SHARDS: usize = 4;
/// The names of the three layers in a GGUF.
const Q_TENSOR: &str = "blk.0.attn_q.weight";
const K_TENSOR: &str = "blk.0.attn_k.weight";
const DOWN_TENSOR: &str = "blk.0.ffn_down.weight";

/// The layers, their tensors, and the widths of their inputs.
const LAYERS: [(&str, &str, usize); 3] =
    [(Q, Q_TENSOR, 8), (K, K_TENSOR, 8), (DOWN, DOWN_TENSOR, 12)];

/// The rows of an input of this width in all shards.
fn rows_of(in_features: usize) -> Vec<f32> {
    let shards = (0..SHARDS).map(|shard| shard as f32);
    let of_shard = |phase: f32| match in_features {
        8 => sine_values(ROWS * 8, phase),
        _ => sine_values(ROWS * 12, 10.0 + phase),
    };
    shards.flat_map(of_shard).collect()
}

/// The entries that llama.cpp would have summed up from the rows in the shards.
fn entries() -> Vec<ImatrixEntry> {
    let of = |(_, tensor, width): &(&str, &str, usize)| {
        ImatrixEntry::of_rows(tensor, &rows_of(*width), *width)
    };
    LAYERS.iter().map(of).collect()
}

/// Writes the file, and says its name.
fn write_imatrix(daemon: &TestDaemon, name: &str, entries: &[ImatrixEntry]) {
    let file = gguf_imatrix(entries, "wiki.txt", 4);
    fs::write(daemon.path().join(name), file).unwrap();
}

/// Options of a run on an imatrix alone, and further ones.
fn alone_with<'a>(file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let options = [
        "--checkpoint",
        "checkpoint",
        "--rank",
        "2",
        "--block-size",
        "4",
        "--method",
        "approx",
        "--imatrix",
        file,
    ];
    [&options[..], more].concat()
}
