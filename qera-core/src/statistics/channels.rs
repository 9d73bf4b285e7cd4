//! What all statistics with one number a channel share: the lent memory, the weight, and how they
//! start and grow.

use super::error::{StatisticError, check_in_features, check_length, check_values, check_weight};
use super::fold::{fold_means, fold_rows};
use crate::rows::Rows;

/// A number for each channel, never negative, and the total weight of the rows behind them.
#[derive(Debug)]
pub(super) struct ChannelValues<'a> {
    values: &'a mut [f64],
    weight: f64,
}

impl<'a> ChannelValues<'a> {
    /// Starts from nothing: zeroes `lent`.
    pub(super) fn new(lent: &'a mut [f64]) -> Result<Self, StatisticError> {
        check_length(lent.len().max(1), lent.len())?;
        lent.fill(0.0);
        Ok(Self {
            values: lent,
            weight: 0.0,
        })
    }

    /// Continues from saved values, which are checked.
    pub(super) fn resume(lent: &'a mut [f64], weight: f64) -> Result<Self, StatisticError> {
        check_length(lent.len().max(1), lent.len())?;
        check_values(lent, 0.0)?;
        check_weight(weight)?;
        Ok(Self {
            values: lent,
            weight,
        })
    }

    /// Takes rows in, where the statistic is a mean of `term`.
    #[inline]
    pub(super) fn take_rows(
        &mut self,
        rows: &Rows<'_>,
        term: impl Fn(f32) -> f32,
    ) -> Result<(), StatisticError> {
        check_in_features(self.values.len(), rows.in_features())?;
        self.weight = fold_rows(self.values, self.weight, rows, term);
        Ok(())
    }

    /// Takes another state in, where the statistic is a mean.
    pub(super) fn take_means(&mut self, other: &ChannelValues<'_>) -> Result<(), StatisticError> {
        check_in_features(self.values.len(), other.values.len())?;
        self.weight = fold_means(self.values, self.weight, other.values, other.weight);
        Ok(())
    }

    /// Takes another state in, where the statistic is a maximum.
    pub(super) fn take_maxima(&mut self, other: &ChannelValues<'_>) -> Result<(), StatisticError> {
        check_in_features(self.values.len(), other.values.len())?;
        self.weight += other.weight;
        for (value, &other) in self.values.iter_mut().zip(other.values.iter()) {
            *value = value.max(other);
        }
        Ok(())
    }

    pub(super) const fn weight(&self) -> f64 {
        self.weight
    }

    pub(super) const fn values(&self) -> &[f64] {
        self.values
    }
}
