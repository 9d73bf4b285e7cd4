//! Why statistics refuse what they are given, and the checks that do so.

use core::fmt;

/// Why a statistic refused memory, rows, sums or another state. Its own state has not changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StatisticError {
    /// The lent memory, or an output, does not have the length it must have.
    Length {
        /// How many numbers are needed.
        needed: usize,
        /// How many were lent.
        lent: usize,
    },
    /// The rows, the sums or the other state have another width.
    InFeatures {
        /// The width of this state.
        expected: usize,
        /// The width of what was given.
        found: usize,
    },
    /// A weight is negative or not finite.
    Weight {
        /// The weight.
        value: f64,
    },
    /// A saved value, or one to merge, is impossible for this statistic.
    Value {
        /// Its place in the slice.
        index: usize,
        /// The value.
        value: f64,
    },
    /// A sum of products is not finite.
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
pub(super) fn check_weight(value: f64) -> Result<(), StatisticError> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(StatisticError::Weight { value })
    }
}

/// Refuses a slice of another length.
pub(super) const fn check_length(needed: usize, lent: usize) -> Result<(), StatisticError> {
    if needed == lent {
        Ok(())
    } else {
        Err(StatisticError::Length { needed, lent })
    }
}

/// Refuses input of another width.
pub(super) const fn check_in_features(expected: usize, found: usize) -> Result<(), StatisticError> {
    if expected == found {
        Ok(())
    } else {
        Err(StatisticError::InFeatures { expected, found })
    }
}

/// Refuses saved values that are not finite, or below `least`.
pub(super) fn check_values(values: &[f64], least: f64) -> Result<(), StatisticError> {
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
