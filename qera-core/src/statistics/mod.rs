//! Statistics of a layer's input, each in memory that the caller lends.
//!
//! | statistic | state for m = in_features | serves |
//! |---|---|---|
//! | [`Moments`] | 2 m f64 | mean and variance per feature: drift, bias correction |
//! | [`SecondMoment`] | m f64 | E\[x_i^2\]: QERA-approx |
//! | [`MeanAbs`] | m f64 | E\|x_i\|: LQER as its paper defines it |
//! | [`BatchMaxMeanAbs`] | m f64 | the largest batch mean of \|x_i\|: LQER as its code computes it |
//! | [`Autocorrelation`] | m (m + 1) / 2 f64 | R = E\[x^T x\]: QERA-exact |
//! | [`BlockMeans`] | 3 numbers | held-out error with Student-t intervals |
//!
//! # One recurrence
//! The means are kept as means, not as sums: with total weight N after a batch of weight n_b and batch mean s_b,
//! s += (n_b / N)(s_b - s) (Welford 1962 for n_b = 1; Chan, Golub and LeVeque 1983, eq. 2.1, for batches). A state never
//! grows with the stream, two states merge by the same formula, and the value is usable at any moment.
//!
//! Error bound: each fold rounds the state by a few units of 2^-53, and what is older is damped by 1 - n_b / N, so after
//! B folds the relative error of a sum of non-negative terms is below about 2 B 2^-53 (in practice nearer to sqrt B).
//!
//! # Memory
//! `new` lends memory and zeroes it; `resume` lends memory that holds saved values. The states themselves own nothing, so
//! what a snapshot has to keep is the lent slice and the weight. Every refusal leaves the state as it was.
//!
//! # Determinism
//! Features in order, rows in order, one fixed sequence of operations: the same rows in the same batches give the same
//! bits. Another partition into batches changes last bits only ([`BatchMaxMeanAbs`] excepted: there it is the definition).

mod autocorrelation;
mod batch_max_mean_abs;
mod held_out;
mod mean_abs;
mod moments;
mod second_moment;
mod student_t;

pub use autocorrelation::{Autocorrelation, BlockShare};
pub use batch_max_mean_abs::BatchMaxMeanAbs;
pub use held_out::{BlockMeans, Interval};
pub use mean_abs::MeanAbs;
pub use moments::Moments;
pub use second_moment::{DeadChannels, SecondMoment};
pub use student_t::student_t_quantile;

use crate::rows::Rows;
use core::fmt;

/// Why a statistic refused memory, rows, sums or another state; its own state is as it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StatisticError {
    /// The lent memory, or an output, does not have the length it must have.
    Length {
        /// How many numbers are needed.
        needed: usize,
        /// How many were lent.
        lent: usize,
    },
    /// Rows, sums or another state of another width.
    InFeatures {
        /// The width of this state.
        expected: usize,
        /// The width of what was given.
        found: usize,
    },
    /// A weight that is negative or not finite.
    Weight {
        /// The weight.
        value: f64,
    },
    /// A saved value, or a value to merge, that no state can have.
    Value {
        /// Its place in the slice.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A sum of products that is not finite.
    Sum {
        /// Row of the sum in X^T X.
        row: usize,
        /// Column of the sum in X^T X.
        column: usize,
        /// The sum.
        value: f32,
    },
}

impl fmt::Display for StatisticError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { needed, lent } => {
                write!(f, "{needed} numbers are needed, {lent} were lent")
            }
            Self::InFeatures { expected, found } => {
                write!(f, "in_features is {found}, the state has {expected}")
            }
            Self::Weight { value } => write!(f, "weight {value} is negative or not finite"),
            Self::Value { index, value } => write!(
                f,
                "value {value} at index {index} is not one that a state can have"
            ),
            Self::Sum { row, column, value } => {
                write!(f, "sum of products ({row}, {column}) is {value}")
            }
        }
    }
}

impl core::error::Error for StatisticError {}

/// Refuses a weight that is negative or not finite.
fn check_weight(value: f64) -> Result<(), StatisticError> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(StatisticError::Weight { value })
    }
}

/// Refuses a slice of another length.
const fn check_length(needed: usize, lent: usize) -> Result<(), StatisticError> {
    if needed == lent {
        Ok(())
    } else {
        Err(StatisticError::Length { needed, lent })
    }
}

/// Refuses another width.
const fn check_in_features(expected: usize, found: usize) -> Result<(), StatisticError> {
    if expected == found {
        Ok(())
    } else {
        Err(StatisticError::InFeatures { expected, found })
    }
}

/// Refuses saved values that are not finite, or below `least`.
fn check_values(values: &[f64], least: f64) -> Result<(), StatisticError> {
    match values
        .iter()
        .position(|value| !value.is_finite() || *value < least)
    {
        Some(index) => Err(StatisticError::Value {
            index,
            value: values[index],
        }),
        None => Ok(()),
    }
}

/// Features whose running values stay in registers or the first-level cache while all rows of a batch go by.
const FEATURES: usize = 32;

/// Folds each row's image under `term` into the running means, row by row, and returns the new total weight.
#[inline]
fn fold_rows(means: &mut [f64], weight: f64, rows: &Rows<'_>, term: impl Fn(f32) -> f32) -> f64 {
    let mut total = weight;
    for (group, means) in means.chunks_mut(FEATURES).enumerate() {
        total = weight;
        let first = group * FEATURES;
        for (row, row_weight) in rows.iter().filter(|(_, row_weight)| *row_weight > 0.0) {
            total += f64::from(row_weight);
            let share = f64::from(row_weight) / total;
            for (mean, &x) in means.iter_mut().zip(&row[first..]) {
                *mean += share * (f64::from(term(x)) - *mean);
            }
        }
    }
    total
}

/// Folds other means of weight `other_weight` into running means of `weight`, and returns the new total weight.
fn fold_means(means: &mut [f64], weight: f64, others: &[f64], other_weight: f64) -> f64 {
    let total = weight + other_weight;
    if other_weight > 0.0 {
        let share = other_weight / total;
        for (mean, &other) in means.iter_mut().zip(others) {
            *mean += share * (other - *mean);
        }
    }
    total
}
