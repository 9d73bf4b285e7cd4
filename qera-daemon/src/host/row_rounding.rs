//! Rows of B rounded to blocks of codes with feedback: from the last number to the first, each so
//! as to make good what those before it lost under H = L L^T (GPTQ's rounding, in f64 and for k
//! numbers; derivation in `round/feedback`).

use faer::MatRef;

use crate::formats::gguf::blocks::encode::BLOCK;
use crate::host::factor_type::{nearest_in_block, scale_for};
use crate::host::rounding::narrow;

/// What a block's scale is tried with: what a number makes good may bring another one beyond the
/// largest of them.
const WIDENED: [f64; 5] = [1.0, 1.05, 1.1, 1.2, 1.4];

/// H = L L^T, by which rows are rounded.
pub(crate) struct RowRounding {
    k: usize,
    /// L_ij / L_jj, by columns.
    shares: Vec<f64>,
    /// L_jj^2.
    pivots: Vec<f64>,
}

/// A block as one scale rounds it.
#[derive(Clone, Copy)]
struct CodedBlock {
    /// The block's part of e^T H e.
    loss: f64,
    values: [f32; BLOCK],
    /// The error of each number.
    errors: [f64; BLOCK],
}

impl RowRounding {
    /// Prepares the rounding for the Cholesky factor L.
    pub(crate) fn new(factor: MatRef<'_, f64>) -> Self {
        let k = factor.nrows();
        let pivot = |j: usize| factor[(j, j)];
        Self {
            k,
            shares: (0..k * k)
                .map(|at| factor[(at % k, at / k)] / pivot(at / k))
                .collect(),
            pivots: (0..k).map(|j| pivot(j).powi(2)).collect(),
        }
    }

    /// What the numbers from `from` on want of number j to be made good.
    fn owed(&self, j: usize, from: usize, errors: &[f64]) -> f64 {
        let shares = &self.shares[j * self.k + from..j * self.k + from + errors.len()];
        shares.iter().zip(errors).map(|(u, e)| u * e).sum()
    }

    /// Rounds one row.
    pub(crate) fn round(&self, wanted: &[f64], rounded: &mut [f32]) {
        let mut errors = vec![0.0; self.k];
        for first in (0..self.k).step_by(BLOCK).rev() {
            let end = (first + BLOCK).min(self.k);
            let owed = |j: usize| wanted[j] + self.owed(j, end, &errors[end..]);
            let targets: Vec<f64> = (first..end).map(owed).collect();
            let largest = targets.iter().fold(0.0, |most: f64, t| most.max(t.abs()));
            let tried =
                WIDENED.map(|by| self.block(first, &wanted[first..end], &targets, by * largest));
            let mut best = tried[0];
            for block in &tried[1..] {
                if block.loss < best.loss {
                    best = *block;
                }
            }
            rounded[first..end].copy_from_slice(&best.values[..end - first]);
            errors[first..end].copy_from_slice(&best.errors[..end - first]);
        }
    }

    /// Rounds the block that begins at `first` with the scale of a largest number.
    fn block(&self, first: usize, wanted: &[f64], targets: &[f64], largest: f64) -> CodedBlock {
        let scale = scale_for(narrow(largest));
        let count = wanted.len();
        let mut block = CodedBlock {
            loss: 0.0,
            values: [0.0; BLOCK],
            errors: [0.0; BLOCK],
        };
        for j in (0..count).rev() {
            let later = &block.errors[j + 1..count];
            let target = targets[j] + self.owed(first + j, first + j + 1, later);
            let value = nearest_in_block(narrow(target), scale);
            block.loss += self.pivots[first + j] * (target - f64::from(value)).powi(2);
            block.values[j] = value;
            block.errors[j] = wanted[j] - f64::from(value);
        }
        block
    }
}
