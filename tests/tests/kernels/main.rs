//! The matrix kernels in every form that this CPU has, and AMX's by its model, against the same
//! products in f64.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a step that fails fails the test; rows are made f32; the errors found are for a report"
)]

mod cores;
mod folds;
mod names;
mod products;

use half::{bf16, f16};
use qera_core::dtype::FloatDtype;
use qera_core::packed::{packed_len, packed_offset};
use qera_core::statistics::BlockShare;
use qera_daemon::{Compute, Cores, Kernel, Scratch, StoredRows, fold_products};
use qera_tests::matrix::Matrix;
use qera_tests::spectra::uniform;

const DTYPES: [FloatDtype; 3] = [FloatDtype::F32, FloatDtype::F16, FloatDtype::Bf16];
/// The smallest normal f32: products below it may be lost.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;

/// Every form that runs here.
fn kernels() -> Vec<Kernel> {
    let mut kernels = Kernel::available();
    kernels.push(Kernel::named("amx-bf16-model").unwrap());
    kernels
}

/// Rows as a shard holds them, and what they are.
struct Encoded {
    bytes: Vec<u8>,
    dtype: FloatDtype,
    m: usize,
    wide: Vec<f64>,
}

impl Encoded {
    fn new(values: &[f32], m: usize, dtype: FloatDtype) -> Self {
        let bytes = values.iter().flat_map(|&x| match dtype {
            FloatDtype::F32 => x.to_le_bytes().to_vec(),
            FloatDtype::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
            FloatDtype::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        });
        Self {
            bytes: bytes.collect(),
            dtype,
            m,
            wide: values.iter().map(|x| f64::from(dtype.round(*x))).collect(),
        }
    }

    fn stored(&self) -> StoredRows<'_> {
        StoredRows::bytes(&self.bytes, self.dtype, self.m)
    }

    fn rows(&self) -> usize {
        self.wide.len() / self.m
    }

    /// X^T X in f64, whose own error is a millionth of what is allowed.
    fn sums(&self) -> Matrix {
        let x = Matrix::from_columns(self.m, self.rows(), self.wide.clone());
        &x * &x.transpose()
    }

    /// Largest |x| of each channel.
    fn peaks(&self) -> Vec<f64> {
        let mut peaks = vec![0.0_f64; self.m];
        for row in self.wide.chunks(self.m) {
            for (peak, x) in peaks.iter_mut().zip(row) {
                *peak = peak.max(x.abs());
            }
        }
        peaks
    }
}

/// Rows of one text: a common part, massive channels, exact zeros of both signs.
fn activations(rows: usize, m: usize) -> Vec<f32> {
    let noise = uniform(m, rows, (rows * 1000 + m) as u64);
    let common = uniform(rows, 1, 3);
    let value = |row: usize, channel: usize| {
        let x = noise[(channel, row)] + 0.5 * common[(row, 0)] + 0.1;
        match (channel + row) % 17 {
            0 => 0.0,
            1 => -0.0,
            _ if channel % 29 == 4 => 1e4 * x,
            _ => x,
        }
    };
    (0..rows)
        .flat_map(|row| (0..m).map(move |channel| value(row, channel) as f32))
        .collect()
}

/// The means of several shards folded one after the other.
fn fold(compute: Compute<'_>, shards: &[StoredRows<'_>], m: usize) -> Vec<f64> {
    let mut packed = vec![0.0; packed_len(m)];
    let mut scratch = Scratch::default();
    let mut seen = 0;
    for shard in shards {
        let before = seen;
        fold_products(compute, *shard, &mut packed, &mut scratch, |count| {
            let share = BlockShare::new(f64::from(seen), count as f64);
            seen += u32::try_from(count).unwrap();
            share
        });
        assert_eq!((seen - before) as usize, shard.rows(), "each row once");
    }
    packed
}

/// The largest |found - sum / rows| over sqrt(R_ii R_jj), beyond what underflows.
fn entry_error(found: &[f64], shards: &[&Encoded]) -> f64 {
    let m = shards[0].m;
    let rows: usize = shards.iter().map(|s| s.rows()).sum();
    let mut sums = Matrix::zeros(m, m);
    let mut peaks = vec![0.0_f64; m];
    for shard in shards {
        sums = &sums + &shard.sums();
        peaks
            .iter_mut()
            .zip(shard.peaks())
            .for_each(|(peak, other)| *peak = peak.max(other));
    }
    let mean = sums.scale(1.0 / rows as f64);
    let mut worst = 0.0_f64;
    for i in 0..m {
        for j in i..m {
            let value = found[packed_offset(m, i) + j - i];
            assert!(value.is_finite(), "R[{i}, {j}] is {value}");
            // A product below the smallest normal number, or (bf16) one whose factor is below it.
            let (x, y) = (peaks[i], peaks[j]);
            let lost = SMALLEST + x.min(SMALLEST) * y + x * y.min(SMALLEST);
            let error = ((value - mean[(i, j)]).abs() - lost).max(0.0);
            let scale = (mean[(i, i)] * mean[(j, j)]).sqrt();
            if error > 0.0 {
                worst = worst.max(error / scale);
            }
        }
    }
    worst
}

fn with_compute<T>(kernel: Kernel, threads: usize, work: impl FnOnce(Compute<'_>) -> T) -> T {
    let cores = Cores::new(threads);
    let _core = cores.take();
    work(Compute::new(kernel, &cores))
}

fn same_bytes(left: &[f64], right: &[f64]) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(l, r)| l.to_bits() == r.to_bits())
}
