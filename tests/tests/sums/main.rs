//! Sums over rows in the place of rows (`<key>::xtx`), as a process: they count as their rows
//! would, once, and what rows cannot have is refused.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod alone;
mod continued;
mod equal;
mod needed;
mod refused;
mod said;

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use qera_tests::daemon::{TestDaemon, expect};
use qera_tests::output_folder::{newest_snapshot, statistics_files};
use qera_tests::safetensors_file::TensorToWrite;
use qera_tests::three_layers::{DOWN, Q, daemon_without_shards, once_with, rename_in, sine_values};
use safetensors::{Dtype, SafeTensors};

const BINARY: &str = env!("CARGO_BIN_EXE_qera-daemon-under-test");
/// Width of each site's rows.
const WIDTHS: [(&str, usize); 2] = [(Q, 8), (DOWN, 12)];
/// Rows of a sequence.
const LENGTH: usize = 75;

/// Type that sums are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SumType {
    F32,
    F64,
}

impl SumType {
    fn tensor(self, name: &str, shape: &[usize], values: &[f64]) -> TensorToWrite {
        match self {
            Self::F32 => {
                #[expect(clippy::cast_possible_truncation, reason = "what f32 sums are")]
                let narrow: Vec<f32> = values.iter().map(|x| *x as f32).collect();
                TensorToWrite::f32(name, shape, &narrow)
            }
            Self::F64 => {
                let bytes = values.iter().flat_map(|x| x.to_le_bytes());
                TensorToWrite::new(name, "F64", shape, bytes.collect())
            }
        }
    }
}

/// Rows that are summed: of whole sequences, each with a weight where they have some.
#[derive(Debug, Clone, Default)]
struct Summed {
    width: usize,
    length: usize,
    values: Vec<f32>,
    weights: Option<Vec<f32>>,
}

impl Summed {
    fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    fn weight(&self, row: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |w| f64::from(w[row]))
    }

    /// The upper triangle of sum w x^T x by rows, in f64.
    fn xtx(&self) -> Vec<f64> {
        let m = self.width;
        let mut sums = vec![vec![0.0; m]; m];
        for (row, x) in self.values.chunks_exact(m).enumerate() {
            for i in 0..m {
                for j in i..m {
                    sums[i][j] += self.weight(row) * f64::from(x[i]) * f64::from(x[j]);
                }
            }
        }
        (0..m).flat_map(|i| sums[i][i..].to_vec()).collect()
    }

    /// sum w |x| of each channel over some rows.
    fn abs_sum(&self, rows: core::ops::Range<usize>) -> Vec<f64> {
        let m = self.width;
        let term =
            |row: usize, i: usize| self.weight(row) * f64::from(self.values[row * m + i].abs());
        let of = |i: usize| rows.clone().map(|row| term(row, i)).sum();
        (0..m).map(of).collect()
    }

    fn batch_max(&self) -> Vec<f64> {
        let mut most = vec![0.0_f64; self.width];
        for first in (0..self.rows()).step_by(self.length) {
            let rows = first..first + self.length;
            let weight: f64 = rows.clone().map(|row| self.weight(row)).sum();
            let sums = self.abs_sum(rows);
            let means = sums.iter().map(|sum| sum / weight);
            most.iter_mut()
                .zip(means)
                .for_each(|(most, mean)| *most = most.max(mean));
        }
        most
    }

    /// What a shard has in the place of these rows.
    fn tensors(&self, key: &str, dtype: SumType) -> Vec<TensorToWrite> {
        let name = |part: &str| format!("{key}::{part}");
        let (xtx, m) = (self.xtx(), self.width);
        let mut tensors = vec![
            dtype.tensor(&name("xtx"), &[xtx.len()], &xtx),
            count(&name("xtx_rows"), self.rows()),
            dtype.tensor(&name("abs_sum"), &[m], &self.abs_sum(0..self.rows())),
            dtype.tensor(&name("batch_max_mean_abs"), &[m], &self.batch_max()),
        ];
        if let Some(weights) = &self.weights {
            let squares = weights.iter().map(|w| f64::from(*w).powi(2)).sum();
            let sum = weights.iter().map(|w| f64::from(*w)).sum();
            tensors.push(SumType::F64.tensor(&name("xtx_weight"), &[2], &[sum, squares]));
        }
        tensors
    }
}

fn count(name: &str, rows: usize) -> TensorToWrite {
    TensorToWrite::new(name, "I64", &[1], (rows as u64).to_le_bytes().to_vec())
}

/// The numbers of a shard of the three layers: four sequences for both sites.
#[derive(Debug, Clone, Copy)]
struct ShardRows {
    number: usize,
    weighted: bool,
}

impl ShardRows {
    /// The rows of this many shards, without weights.
    fn plain(shards: usize) -> impl Iterator<Item = Self> + Clone {
        (0..shards).map(|number| Self {
            number,
            weighted: false,
        })
    }

    fn sequences(&self, width: usize, of: core::ops::Range<usize>) -> Summed {
        let phase = self.number as f32 + if width == 12 { 10.0 } else { 0.0 };
        let values = sine_values(4 * LENGTH * width, phase);
        let rows = of.start * LENGTH..of.end * LENGTH;
        let weight = |row: usize| [0.5_f32, 2.0, 1.0, 3.0, 0.25][(row + self.number) % 5];
        Summed {
            width,
            length: LENGTH,
            values: values[rows.start * width..rows.end * width].to_vec(),
            weights: self.weighted.then(|| rows.map(weight).collect()),
        }
    }

    /// As rows.
    fn as_rows(&self, of: core::ops::Range<usize>) -> Vec<TensorToWrite> {
        let mut tensors = Vec::new();
        for (key, width) in WIDTHS {
            let rows = self.sequences(width, of.clone());
            let shape = [of.len(), LENGTH, width];
            tensors.push(TensorToWrite::f32(key, &shape, &rows.values));
            if let Some(weights) = &rows.weights {
                let name = format!("{key}::weight");
                tensors.push(TensorToWrite::f32(&name, &shape[..2], weights));
            }
        }
        tensors
    }

    /// As sums.
    fn as_sums(&self, of: core::ops::Range<usize>, dtype: SumType) -> Vec<TensorToWrite> {
        let sum = |(key, width)| self.sequences(width, of.clone()).tensors(key, dtype);
        WIDTHS.into_iter().flat_map(sum).collect()
    }

    /// The first sequence as rows, the others as sums.
    fn mixed(&self, dtype: SumType) -> Vec<TensorToWrite> {
        [self.as_rows(0..1), self.as_sums(1..4, dtype)].concat()
    }
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

/// A tensor of each site's statistics.
fn statistics(daemon: &TestDaemon, name: &str) -> Vec<Vec<f64>> {
    let files = statistics_files(&daemon.path().join("qera-out/state"));
    let read = |bytes: &[u8]| {
        let file = SafeTensors::deserialize(bytes).unwrap();
        numbers(
            file.tensor(name).unwrap().dtype(),
            file.tensor(name).unwrap().data(),
        )
    };
    files.iter().map(|file| read(&file.bytes)).collect()
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    let pairs = bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F64 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|x| f64::from_le_bytes(*x))
            .collect(),
        Dtype::F32 => {
            let values = bytes.as_chunks().0.iter();
            values.map(|x| f32::from_le_bytes(*x).into()).collect()
        }
        Dtype::BF16 => pairs.map(|x| bf16::from_le_bytes(*x).into()).collect(),
        Dtype::F16 => pairs.map(|x| f16::from_le_bytes(*x).into()).collect(),
        other => panic!("{other:?}"),
    }
}

/// The rows of a shard by key, with the shape of each.
fn rows_of_file(path: &Path) -> Vec<KeyedRows> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let rows = file.tensors().into_iter().map(|(key, tensor)| KeyedRows {
        key,
        shape: tensor.shape().to_vec(),
        bytes: tensor.data().to_vec(),
        #[expect(clippy::cast_possible_truncation, reason = "they were f32 or less")]
        values: numbers(tensor.dtype(), tensor.data())
            .iter()
            .map(|x| *x as f32)
            .collect(),
    });
    rows.collect()
}

/// A tensor of bf16 rows.
struct KeyedRows {
    key: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
    values: Vec<f32>,
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
