//! Weights of rows (`<key>::weight`), as a process: a row of weight 3 is three rows, one of weight
//! 0 is none.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod continued;
mod judged;
mod masks;
mod refused;
mod repeated;
mod rounded;

use std::fs;

use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::output_folder::newest_snapshot;
use qera_tests::three_layers::{DOWN, Q, daemon_without_shards, once_with, rename_in, sine_values};

use qera_tests::safetensors_file::TensorToWrite;

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// Width of each site's rows.
const WIDTHS: [(&str, usize); 2] = [(Q, 8), (DOWN, 12)];

/// A shard's rows, the same for every way of weighing them.
#[derive(Debug, Clone, Copy)]
struct Rows {
    /// Its number.
    shard: usize,
    sequences: usize,
    length: usize,
}

impl Rows {
    /// Four shards of four sequences.
    fn four() -> impl Iterator<Item = Self> {
        (0..4).map(|shard| Self {
            shard,
            sequences: 4,
            length: 75,
        })
    }

    fn count(&self) -> usize {
        self.sequences * self.length
    }

    /// Numbers of a site.
    fn values(&self, width: usize) -> Vec<f32> {
        let phase = self.shard as f32 + if width == 12 { 10.0 } else { 0.0 };
        sine_values(self.count() * width, phase)
    }

    /// A weight for each row, from this pattern; a length that the pattern's divides gives each
    /// sequence the same sum.
    fn weights(&self, pattern: &[f32]) -> Vec<f32> {
        let weight = |row: usize| pattern[(row + self.shard) % pattern.len()];
        (0..self.count()).map(weight).collect()
    }

    /// The tensors of both sites with what `beside` says of the rows.
    fn tensors(
        &self,
        beside: impl Fn(&str, &[usize]) -> Option<TensorToWrite>,
    ) -> Vec<TensorToWrite> {
        let mut tensors = Vec::new();
        for (key, width) in WIDTHS {
            let shape = [self.sequences, self.length, width];
            tensors.push(TensorToWrite::f32(key, &shape, &self.values(width)));
            tensors.extend(beside(key, &shape[..2]));
        }
        tensors
    }

    /// With weights from this pattern.
    fn weighted(&self, pattern: &[f32]) -> Vec<TensorToWrite> {
        self.tensors(|key, shape| Some(weights_of(key, shape, &self.weights(pattern))))
    }

    /// Each row as often as its weight from this pattern says.
    fn repeated(&self, pattern: &[f32]) -> Vec<TensorToWrite> {
        let weights = self.weights(pattern);
        let of_site = |(key, width): (&str, usize)| {
            let values = self.values(width);
            let rows = values.chunks(width).zip(&weights);
            let times = |w: f32| (1_u16..).take_while(move |n| f32::from(*n) <= w).count();
            let repeated: Vec<f32> = rows.flat_map(|(row, w)| row.repeat(times(*w))).collect();
            let length = repeated.len() / width / self.sequences;
            TensorToWrite::f32(key, &[self.sequences, length, width], &repeated)
        };
        WIDTHS.into_iter().map(of_site).collect()
    }
}

fn weights_of(key: &str, shape: &[usize], weights: &[f32]) -> TensorToWrite {
    TensorToWrite::f32(&format!("{key}::weight"), shape, weights)
}

/// A daemon with the checkpoint of three layers and these shards.
fn daemon_with(shards: impl Iterator<Item = Vec<TensorToWrite>>) -> TestDaemon {
    let daemon = daemon_without_shards(BINARY);
    for (number, tensors) in shards.enumerate() {
        rename_in(&daemon, &format!("shard-{number}"), &tensors);
    }
    daemon
}

/// The same after a run with `--once`.
fn once(shards: impl Iterator<Item = Vec<TensorToWrite>>, more: &[&str]) -> TestDaemon {
    let daemon = daemon_with(shards);
    expect(&daemon.run(&once_with(more)), 0, &[]);
    daemon
}

/// Version of the newest snapshot.
fn state_version(daemon: &TestDaemon) -> u64 {
    let snapshot = newest_snapshot(&daemon.path().join("qera-out/state"));
    let index = fs::read_to_string(snapshot.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(index.split('\t').next().unwrap()).unwrap();
    index["version"].as_u64().unwrap()
}

/// A number of a layer in the manifest.
fn number(daemon: &TestDaemon, layer: &str, pointer: &str) -> f64 {
    let adapter = daemon.adapter("qera-out");
    let found = adapter.layer(layer).pointer(pointer);
    found.and_then(serde_json::Value::as_f64).unwrap()
}

fn assert_near(found: f64, expected: f64, relative: f64, what: &str) {
    let error = (found - expected).abs();
    assert!(
        error <= relative * expected.abs(),
        "{what}: {found} is not {expected}"
    );
}
