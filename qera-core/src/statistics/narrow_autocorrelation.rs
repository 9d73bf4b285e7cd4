//! The autocorrelation R = E\[x^T x\] in f32, for devices: half of the memory of
//! [`Autocorrelation`](super::Autocorrelation), and no f64 arithmetic but a few operations a batch.
//!
//! The same triangle of means, folded batch by batch,
//!
//!   R_ij += (n_b / N)(S_ij / n_b - R_ij),   S_ij the batch's sum of x_i x_j, summed in f32.
//!
//! # Error
//! A fold rounds a mean by at most 2^-24 of itself and moves it by a share of n_b / N, so that what
//! is older than a few N / n_b folds is forgotten with its roundings: after B = N / n_b folds about
//! 2^-24 sqrt(B / 3) of the mean are left, as of a random walk. Of 10^6 rows fed one at a time that
//! is at most 3.4e-5 of sqrt(R_ii R_jj), of 10^6 rows in batches of 8 at most 1.2e-5 (test
//! `a_million_rows_in_f32`: 2.9e-5 and 7.4e-6): a thirtieth of what 10^6 rows know of R, which is
//! 10^-3, so that nothing is compensated. Beyond 2^24 rows fed one at a time the share is lost in
//! the rounding and the mean stops: send the sums away before that and begin anew
//! ([`reset`](NarrowAutocorrelation::reset)), or feed batches.
//!
//! Cost: n m (m + 1) flops for n rows. Source: as [`Autocorrelation`](super::Autocorrelation).

use super::error::{StatisticError, check_in_features, check_length, check_weight};
use crate::linalg::narrow;
use crate::packed::{packed_len, packed_offset};
use crate::rows::Rows;

/// Columns summed at a time: 256 bytes of stack.
const TILE: usize = 64;

/// Running E\[x^T x\] in f32, packed.
#[derive(Debug)]
pub struct NarrowAutocorrelation<'a> {
    packed: &'a mut [f32],
    in_features: usize,
    weight: f64,
}

impl<'a> NarrowAutocorrelation<'a> {
    /// Starts from nothing: zeroes `packed`.
    ///
    /// # Shapes
    /// `packed` holds [`packed_len`]`(in_features)` numbers.
    ///
    /// # Errors
    /// [`StatisticError::Length`] for another length, or when `in_features` is 0.
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::NarrowAutocorrelation};
    /// let mut packed = [0.0; 3];
    /// let mut autocorrelation = NarrowAutocorrelation::new(&mut packed, 2)?;
    /// autocorrelation.update(&Rows::new(&[1.0, 2.0, 3.0, -4.0], 2)?)?;
    /// assert_eq!(autocorrelation.packed(), [5.0, -5.0, 10.0]);
    /// assert!(autocorrelation.sums().eq([10.0, -10.0, 20.0]));
    /// autocorrelation.reset();
    /// assert_eq!((autocorrelation.weight(), autocorrelation.packed()), (0.0, &[0.0; 3][..]));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn new(packed: &'a mut [f32], in_features: usize) -> Result<Self, StatisticError> {
        packed.fill(0.0);
        Self::resume(packed, in_features, 0.0)
    }

    /// Continues from saved values of total weight `weight`.
    ///
    /// # Errors
    /// [`StatisticError::Length`] as for [`new`](Self::new), [`StatisticError::Value`] for a saved
    /// value that is not finite or a negative one on the diagonal, [`StatisticError::Weight`].
    pub fn resume(
        packed: &'a mut [f32],
        in_features: usize,
        weight: f64,
    ) -> Result<Self, StatisticError> {
        check_length(packed_len(in_features.max(1)), packed.len())?;
        check_weight(weight)?;
        let wrong = |(index, value): (usize, &f32)| {
            let value = f64::from(*value);
            (!value.is_finite()).then_some(StatisticError::Value { index, value })
        };
        if let Some(error) = packed.iter().enumerate().find_map(wrong) {
            return Err(error);
        }
        for i in 0..in_features {
            let index = packed_offset(in_features, i);
            let value = f64::from(packed[index]);
            if value < 0.0 {
                return Err(StatisticError::Value { index, value });
            }
        }
        Ok(Self {
            packed,
            in_features,
            weight,
        })
    }

    /// Takes rows in as one batch; no workspace.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when the rows are of another width.
    ///
    /// # Determinism
    /// The same batches give the same bits on every machine; another partition changes last bits.
    pub fn update(&mut self, rows: &Rows<'_>) -> Result<(), StatisticError> {
        check_in_features(self.in_features, rows.in_features())?;
        let batch = rows.weight();
        if batch <= 0.0 {
            return Ok(());
        }
        self.weight += batch;
        let share = narrow(batch / self.weight);
        let per_batch = narrow(1.0 / batch);
        for i in 0..self.in_features {
            let triangle_row = &mut self.packed
                [packed_offset(self.in_features, i)..packed_offset(self.in_features, i + 1)];
            for (tile, means) in triangle_row.chunks_mut(TILE).enumerate() {
                let mut sums = [0.0_f32; TILE];
                let sums = &mut sums[..means.len()];
                let first = i + tile * TILE;
                for row in rows.iter() {
                    let x = row.weight * row.values[i];
                    for (sum, &y) in sums.iter_mut().zip(&row.values[first..]) {
                        *sum += x * y;
                    }
                }
                for (mean, sum) in means.iter_mut().zip(sums) {
                    *mean += share * (*sum * per_batch - *mean);
                }
            }
        }
        Ok(())
    }

    /// Forgets all rows, after their sums were sent.
    pub fn reset(&mut self) {
        self.packed.fill(0.0);
        self.weight = 0.0;
    }

    /// Goes through the sums of x^T x over the rows seen, the upper triangle by rows: what a shard
    /// of sums holds.
    pub fn sums(&self) -> impl Iterator<Item = f32> {
        let weight = self.weight;
        self.packed
            .iter()
            .map(move |mean| narrow(f64::from(*mean) * weight))
    }

    /// Returns the total weight of the rows seen.
    #[must_use]
    pub const fn weight(&self) -> f64 {
        self.weight
    }

    /// Returns in_features.
    #[must_use]
    pub const fn in_features(&self) -> usize {
        self.in_features
    }

    /// Returns the packed triangle.
    #[must_use]
    pub const fn packed(&self) -> &[f32] {
        self.packed
    }
}
