//! Folds sums of x^T x that were formed elsewhere into R, in the place of rows.
//!
//! R <- (W_s R + S) / (W_s + W) with W_s the weight seen, S = sum w x^T x and W = sum w: the fold
//! of every block of rows here (`qera_core::statistics`, Chan, Golub and LeVeque), in f64. What S
//! was formed with cannot be made good: entries of an S in f32 are off by the rounding of its
//! numbers, 6e-8, and by that of its sums, so that massive channels are not in R in f64 any more,
//! whatever rows come beside them (`SiteStatistics::diagonal_errors` counts it).
//!
//! The means of x are not in S. The moments of single channels take its rows as if their mean were
//! 0 and S_ii the sum of squared deviations from it: mean^2 + M2 / N is then E[x^2] of all rows to
//! the last bits, which is what moments are asked for; a mean alone is no longer that of all rows,
//! and a channel that hardly varies does not show.

use core::ops::Range;
use std::sync::Arc;

use qera_core::packed::{packed_len, packed_offset};
use qera_core::statistics::{Autocorrelation, BlockShare, StatisticError};

use crate::host::kernels::row_weights::Extent;
use crate::host::second_moment::SecondMoment;

/// Numbers that are widened at a time.
const PIECE: usize = 512;

/// A packed triangle as a shard has it, little-endian.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedSum<'a> {
    numbers: SumNumbers<'a>,
    m: usize,
}

#[derive(Debug, Clone, Copy)]
enum SumNumbers<'a> {
    F32(&'a [[u8; 4]]),
    F64(&'a [[u8; 8]]),
}

impl<'a> PackedSum<'a> {
    /// A packed triangle of f32 numbers.
    pub(crate) fn f32(bytes: &'a [u8], m: usize) -> Self {
        Self {
            numbers: SumNumbers::F32(bytes.as_chunks().0),
            m,
        }
    }

    /// A packed triangle of f64 numbers.
    pub(crate) fn f64(bytes: &'a [u8], m: usize) -> Self {
        Self {
            numbers: SumNumbers::F64(bytes.as_chunks().0),
            m,
        }
    }

    /// Width of a row of the input.
    pub(crate) const fn m(&self) -> usize {
        self.m
    }

    /// Whether its numbers are f32.
    pub(crate) const fn is_f32(&self) -> bool {
        matches!(self.numbers, SumNumbers::F32(_))
    }

    /// How many numbers there are.
    pub(crate) const fn count(&self) -> usize {
        match self.numbers {
            SumNumbers::F32(numbers) => numbers.len(),
            SumNumbers::F64(numbers) => numbers.len(),
        }
    }

    /// The place of row i's numbers, its diagonal element first.
    pub(crate) const fn row(&self, i: usize) -> Range<usize> {
        packed_offset(self.m, i)..packed_offset(self.m, i + 1)
    }

    /// Some of the numbers, as many as there is room for.
    pub(crate) fn widen(&self, from: usize, to: &mut [f64]) {
        match self.numbers {
            SumNumbers::F32(numbers) => {
                let numbers = to.iter_mut().zip(&numbers[from..]);
                numbers.for_each(|(to, le)| *to = f64::from(f32::from_le_bytes(*le)));
            }
            SumNumbers::F64(numbers) => {
                let numbers = to.iter_mut().zip(&numbers[from..]);
                numbers.for_each(|(to, le)| *to = f64::from_le_bytes(*le));
            }
        }
    }

    /// The diagonal of the triangle.
    pub(crate) fn diagonal(&self) -> Vec<f64> {
        let mut diagonal = vec![0.0; self.m];
        for (i, to) in diagonal.iter_mut().enumerate() {
            self.widen(self.row(i).start, core::slice::from_mut(to));
        }
        diagonal
    }
}

impl SecondMoment {
    /// Folds a sum over rows of this extent in, where R is gathered; else its diagonal. `seen` was
    /// folded before.
    ///
    /// # Errors
    /// [`StatisticError`] for a sum of another width.
    pub(crate) fn fold_sum(
        &mut self,
        sum: PackedSum<'_>,
        of: &Extent,
        seen: &Extent,
    ) -> Result<(), StatisticError> {
        let share = BlockShare::new(seen.weight, of.weight);
        if let Self::Packed { r, .. } = self {
            // Nobody else has it now, or the copy is meant.
            let r = &mut **Arc::make_mut(r);
            Autocorrelation::go_on(r, sum.m(), seen.weight)?;
            fold_packed(r, sum, share)?;
        }
        let channels = self.channels_mut();
        let all = channels.mean.len();
        if all != sum.m() {
            return Err(width(all, sum.m()));
        }
        let kept = seen.weight / (seen.weight + of.weight);
        let moments = channels.mean.iter_mut().zip(&mut channels.m2);
        for ((mean, m2), squares) in moments.zip(sum.diagonal()) {
            // Chan's formula beside rows of mean 0.
            *m2 += squares + *mean * *mean * of.weight * kept;
            *mean *= kept;
        }
        Ok(())
    }
}

fn fold_packed(r: &mut [f64], sum: PackedSum<'_>, share: BlockShare) -> Result<(), StatisticError> {
    if r.len() != packed_len(sum.m()) || r.len() != sum.count() {
        return Err(width(r.len(), sum.count()));
    }
    let mut sums = [0.0; PIECE];
    for (piece, means) in r.chunks_mut(PIECE).enumerate() {
        let sums = &mut sums[..means.len()];
        sum.widen(piece * PIECE, sums);
        share.fold(means, sums);
    }
    Ok(())
}

const fn width(expected: usize, found: usize) -> StatisticError {
    StatisticError::InFeatures { expected, found }
}
