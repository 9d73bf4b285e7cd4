//! Why a rounding is refused.

use core::fmt;

use super::super::error::GridError;
use crate::linalg::{JacobiEigenError, ShapeMismatch, WorkspaceTooSmall, from_lent};

/// Why a weight was not rounded, or a metric not made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RoundError {
    /// The weight, or the memory lent for its values and levels, does not fit this grid.
    Grid(GridError),
    /// A matrix or packed triangle does not fit.
    Shape(ShapeMismatch),
    /// The workspace is too short.
    Workspace(WorkspaceTooSmall),
    /// A value is NaN or infinite.
    NonFinite {
        /// Name of the argument.
        operand: &'static str,
        /// Position in its column-major (or packed) order.
        index: usize,
    },
    /// A diagonal element of the factor or metric is not positive.
    Diagonal {
        /// Which one.
        index: usize,
        /// The value.
        value: f64,
    },
    /// An option is outside its range.
    Option {
        /// Its name.
        option: &'static str,
        /// The value.
        value: f64,
    },
    /// The eigenvalues of A^T R A were not found.
    Eigen(JacobiEigenError),
}

impl fmt::Display for RoundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grid(error) => error.fmt(f),
            Self::Shape(shape) => shape.fmt(f),
            Self::Workspace(workspace) => workspace.fmt(f),
            Self::NonFinite { operand, index } => {
                write!(f, "value {index} of `{operand}` is not finite")
            }
            Self::Diagonal { index, value } => {
                write!(f, "diagonal element {index} is {value:e}, not positive")
            }
            Self::Option { option, value } => write!(f, "{option} {value} is out of range"),
            Self::Eigen(error) => write!(f, "A^T R A: {error}"),
        }
    }
}

impl core::error::Error for RoundError {}

from_lent!(RoundError);

impl From<GridError> for RoundError {
    fn from(error: GridError) -> Self {
        Self::Grid(error)
    }
}

impl From<JacobiEigenError> for RoundError {
    fn from(error: JacobiEigenError) -> Self {
        Self::Eigen(error)
    }
}
