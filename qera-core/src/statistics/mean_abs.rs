//! The mean magnitude E|x_i| of each feature: the scale of LQER as its paper defines it.
//!
//! s_i += (w / N)(|x_i| - s_i) for each row of weight w. Unlike the [largest batch
//! mean](super::BatchMaxMeanAbs) that the published code computes, this does not depend on how the
//! rows were cut into batches. LQER's correction does not change when its scale is multiplied by a
//! constant, so no normalisation belongs to the statistic.
//!
//! Cost: 4 flops a value. Error: the bound of [the module](super); |x| is exact.
//! Source: LQER (ICML 2024), section 3.2, and QERA (ICLR 2025), algorithm 2.

use super::channels::ChannelValues;
use super::error::StatisticError;
use crate::rows::Rows;

/// Running E|x_i| of each feature.
#[derive(Debug)]
pub struct MeanAbs<'a>(ChannelValues<'a>);

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
        ChannelValues::new(lent).map(Self)
    }

    /// Continues from saved values of total weight `weight`.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `lent` is empty, [`StatisticError::Value`] for a negative or
    /// non-finite saved value, [`StatisticError::Weight`].
    pub fn resume(lent: &'a mut [f64], weight: f64) -> Result<Self, StatisticError> {
        ChannelValues::resume(lent, weight).map(Self)
    }

    /// Takes rows in.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when the rows are of another width.
    pub fn update(&mut self, rows: &Rows<'_>) -> Result<(), StatisticError> {
        self.0.take_rows(rows, f32::abs)
    }

    /// Takes in what another state has seen, as if its rows had come here.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when it is of another width.
    pub fn merge(&mut self, other: &MeanAbs<'_>) -> Result<(), StatisticError> {
        self.0.take_means(&other.0)
    }

    /// The channel values that [`BatchMaxMeanAbs`](super::BatchMaxMeanAbs) takes in.
    pub(super) const fn channels(&self) -> &ChannelValues<'a> {
        &self.0
    }

    /// Returns the total weight of the rows seen.
    #[must_use]
    pub const fn weight(&self) -> f64 {
        self.0.weight()
    }

    /// Returns E|x_i| for each feature; zeros before the first row.
    #[must_use]
    pub const fn values(&self) -> &[f64] {
        self.0.values()
    }
}
