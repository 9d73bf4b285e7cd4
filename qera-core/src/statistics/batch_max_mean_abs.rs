//! The largest batch mean of |x_i|: the scale of LQER as the published profilers compute it.
//!
//! s_i = max over batches b of (sum_t w_t |x_ti|) / (sum_t w_t), t running over the rows of b; then
//! S_i = max(s_i, 1e-4) / sqrt(min S max S), the square root of the smallest times the largest
//! clamped value. **The partition into batches is part of the definition**: the same rows as one
//! batch or as two give different scales. For whoever wants the statistic of the paper there is
//! [`MeanAbs`].
//!
//! A maximum is exact, so states merge without rounding, in any order.
//!
//! Cost: 4 flops a value and m numbers of workspace. Error: each batch mean has the bound of [the
//! module](super) for that batch alone, where the profilers take their means in f32. Source: LQER
//! (ICML 2024), `statistic_profiler/scale.py` of its code and of QERA's, class
//! `ScaleHookFactoryMeanAbs`.

use super::channels::ChannelValues;
use super::error::{StatisticError, check_in_features, check_length};
use super::mean_abs::MeanAbs;
use crate::rows::Rows;

/// What the profilers clamp a scale to before they normalise it.
const SCALE_MIN: f64 = 1e-4;

/// Running maximum, over batches, of each feature's mean magnitude.
#[derive(Debug)]
pub struct BatchMaxMeanAbs<'a>(ChannelValues<'a>);

impl<'a> BatchMaxMeanAbs<'a> {
    /// Starts from nothing: zeroes `lent`, one number for each feature.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `lent` is empty.
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::BatchMaxMeanAbs};
    /// let (mut lent, mut scratch, mut scale) = ([0.0; 2], [0.0; 2], [0.0; 2]);
    /// let mut statistic = BatchMaxMeanAbs::new(&mut lent)?;
    /// statistic.update_batch(&Rows::new(&[1.0, 2.0, 3.0, -4.0], 2)?, &mut scratch)?;
    /// statistic.update_batch(&Rows::new(&[8.0, 1.0], 2)?, &mut scratch)?;
    /// assert_eq!(statistic.values(), [8.0, 3.0]);
    /// statistic.finish_scale(&mut scale)?;
    /// assert!((scale[0] * scale[1] - 1.0).abs() < 1e-15);
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

    /// Takes all the rows of one batch in; a batch of weight 0 is no batch.
    ///
    /// # Workspace
    /// `scratch`: in_features numbers, exactly; it holds the batch's mean afterwards.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when the rows are of another width,
    /// [`StatisticError::Length`] for `scratch`.
    pub fn update_batch(
        &mut self,
        rows: &Rows<'_>,
        scratch: &mut [f64],
    ) -> Result<(), StatisticError> {
        check_in_features(self.values().len(), rows.in_features())?;
        check_length(self.values().len(), scratch.len())?;
        let mut batch = MeanAbs::new(scratch)?;
        batch.update(rows)?;
        self.take_batch(&batch)
    }

    /// Takes one batch in by its means: a [`MeanAbs`] that has seen the rows of that batch and no
    /// others.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when it is of another width.
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::{BatchMaxMeanAbs, MeanAbs}};
    /// let (mut largest, mut mean) = ([0.0; 1], [0.0; 1]);
    /// let mut statistic = BatchMaxMeanAbs::new(&mut largest)?;
    /// for values in [[1.0, -3.0], [0.5, 0.5]] {
    ///     let mut batch = MeanAbs::new(&mut mean)?;
    ///     batch.update(&Rows::new(&values, 1)?)?;
    ///     statistic.take_batch(&batch)?;
    /// }
    /// assert_eq!(statistic.values(), [2.0]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn take_batch(&mut self, batch: &MeanAbs<'_>) -> Result<(), StatisticError> {
        self.0.take_maxima(batch.channels())
    }

    /// Takes in what another state has seen, as if its batches had come here.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when it is of another width.
    pub fn merge(&mut self, other: &BatchMaxMeanAbs<'_>) -> Result<(), StatisticError> {
        self.0.take_maxima(&other.0)
    }

    /// Returns the total weight of the rows seen.
    #[must_use]
    pub const fn weight(&self) -> f64 {
        self.0.weight()
    }

    /// Returns the largest batch mean of each feature, neither clamped nor normalised; zeros before
    /// the first batch.
    #[must_use]
    pub const fn values(&self) -> &[f64] {
        self.0.values()
    }

    /// Writes the profilers' scale: clamped to at least 1e-4, then divided by sqrt(min max). Ones
    /// before the first batch.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `out` does not have in_features numbers.
    pub fn finish_scale(&self, out: &mut [f64]) -> Result<(), StatisticError> {
        check_length(self.values().len(), out.len())?;
        let clamped = || self.values().iter().map(|value| value.max(SCALE_MIN));
        let least = clamped().fold(f64::INFINITY, |least, scale| scale.min(least));
        let largest = clamped().fold(0.0, |largest, scale| scale.max(largest));
        let middle = libm::sqrt(least * largest);
        for (scale, value) in out.iter_mut().zip(clamped()) {
            *scale = value / middle;
        }
        Ok(())
    }
}
