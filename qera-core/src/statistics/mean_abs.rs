//! The mean magnitude E|x_i| of each feature: the scale of LQER as its paper defines it.
//!
//! s_i += (w / N)(|x_i| - s_i) for each row of weight w. Unlike the [largest batch mean](super::BatchMaxMeanAbs) that the
//! published code computes, this does not depend on how the rows were cut into batches. LQER's correction does not change
//! when its scale is multiplied by a constant, so no normalisation belongs to the statistic.
//!
//! Cost: 4 flops a value. Error: the bound of [the module](super); |x| is exact.
//! Source: LQER (ICML 2024), section 3.2, and QERA (ICLR 2025), algorithm 2.

use super::{
    StatisticError, check_in_features, check_length, check_values, check_weight, fold_means,
    fold_rows,
};
use crate::rows::Rows;

/// Running E|x_i| of each feature.
#[derive(Debug)]
pub struct MeanAbs<'a> {
    values: &'a mut [f64],
    weight: f64,
}

impl<'a> MeanAbs<'a> {
    /// Starts from nothing: zeroes `lent`, one number for each feature.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `lent` is empty.
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::MeanAbs};
    /// let mut lent = [0.0; 2];
    /// let mut mean_abs = MeanAbs::new(&mut lent)?;
    /// mean_abs.update(&Rows::new(&[1.0, 2.0, 3.0, -4.0], 2)?.weighted(&[3.0, 1.0])?)?;
    /// assert_eq!(mean_abs.values(), [1.5, 2.5]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn new(lent: &'a mut [f64]) -> Result<Self, StatisticError> {
        lent.fill(0.0);
        Self::resume(lent, 0.0)
    }

    /// Continues from saved values of total weight `weight`.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `lent` is empty, [`StatisticError::Value`] for a negative or non-finite saved value,
    /// [`StatisticError::Weight`].
    pub fn resume(lent: &'a mut [f64], weight: f64) -> Result<Self, StatisticError> {
        check_length(lent.len().max(1), lent.len())?;
        check_values(lent, 0.0)?;
        check_weight(weight)?;
        Ok(Self {
            values: lent,
            weight,
        })
    }

    /// Takes rows in.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when the rows are of another width.
    pub fn update(&mut self, rows: &Rows<'_>) -> Result<(), StatisticError> {
        check_in_features(self.values.len(), rows.in_features())?;
        self.weight = fold_rows(self.values, self.weight, rows, f32::abs);
        Ok(())
    }

    /// Takes in what another state has seen, as if its rows had come here.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when it is of another width.
    pub fn merge(&mut self, other: &MeanAbs<'_>) -> Result<(), StatisticError> {
        check_in_features(self.values.len(), other.values.len())?;
        self.weight = fold_means(self.values, self.weight, other.values, other.weight);
        Ok(())
    }

    /// Returns the total weight of the rows seen.
    #[must_use]
    pub const fn weight(&self) -> f64 {
        self.weight
    }

    /// Returns E|x_i| for each feature; zeros before the first row.
    #[must_use]
    pub const fn values(&self) -> &[f64] {
        self.values
    }
}
