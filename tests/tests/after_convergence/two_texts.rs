//! Made streams for the checkpoint of three layers: one text for as long as a test wants it, and
//! another one.

use core::ops::Range;
use std::fs;
use std::path::Path;

use qera_core::pseudo_random::SplitMix64;
use qera_tests::daemon::TestDaemon;
use qera_tests::safetensors_file::{TensorToWrite, write_safetensors};
use qera_tests::three_layers::{DOWN, Q, daemon_without_shards};

use super::BINARY;

/// Which channels are the large ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// The first half of them.
    First,
    /// The last half.
    Second,
}

/// Sequences of a shard, and rows of each.
const SEQUENCES: usize = 32;
const LENGTH: usize = 128;
/// Rows of a shard.
pub(crate) const SHARD_ROWS: u64 = (SEQUENCES * LENGTH) as u64;

/// Numbers from -1 to 1 that depend on the seed alone.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut sequence = SplitMix64::new(seed);
    (0..count)
        .map(|_| (sequence.next_bits() >> 40) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

/// Rows of a text.
pub(crate) fn rows(count: usize, width: usize, seed: u64, text: Text) -> Vec<f32> {
    let is_large = |channel: usize| (channel < width / 2) == (text == Text::First);
    let mut values = noise(count * width, seed);
    for row in values.chunks_exact_mut(width) {
        for (channel, value) in row.iter_mut().enumerate() {
            *value *= if is_large(channel) { 4.0 } else { 0.5 };
        }
    }
    values
}

/// A shard of both sites.
pub(crate) fn write_shard_of(text: Text, folder: &Path, number: u64) {
    let tensor = |name: &str, width: usize, seed: u64| {
        let values = rows(SEQUENCES * LENGTH, width, seed, text);
        TensorToWrite::f32(name, &[SEQUENCES, LENGTH, width], &values)
    };
    let tensors = [
        tensor(Q, 8, 1_000_003 * number),
        tensor(DOWN, 12, 1_000_003 * number + 500_000),
    ];
    let aside = folder.join(format!(".{number:03}.part"));
    write_safetensors(&aside, &tensors, &[]);
    fs::rename(aside, folder.join(format!("{number:03}.safetensors"))).unwrap();
}

/// Adds these shards to the watched folder.
pub(crate) fn write_shards_of(text: Text, daemon: &TestDaemon, numbers: Range<u64>) {
    for number in numbers {
        write_shard_of(text, &daemon.watched(), number);
    }
}

/// A daemon's folder with the checkpoint and so many shards of the first text.
pub(crate) fn daemon_with_first_text(shards: u64) -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    write_shards_of(Text::First, &daemon, 0..shards);
    daemon
}
