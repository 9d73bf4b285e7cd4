//! Why a sketch refuses what it is given.

use core::fmt;

use crate::linalg::{JacobiEigenError, ShapeMismatch};
use crate::rows::ShapeError;

/// Why rows, another sketch or lent memory were refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SketchError {
    /// The room for errors or columns does not hold a single one, or the workspace is too short.
    Room {
        /// How many numbers are needed at least.
        needed: usize,
        /// How many numbers were lent.
        lent: usize,
    },
    /// Rows of errors, or another sketch, have another width.
    Width {
        /// The out_features of this sketch.
        expected: usize,
        /// The width of what was given.
        found: usize,
    },
    /// A lent matrix does not fit.
    Shape(ShapeMismatch),
    /// An output error that is not finite, or too large to be squared: E or a row is broken.
    Errors(ShapeError),
    /// The eigenvectors of a block were not found.
    Shrink(JacobiEigenError),
}

impl fmt::Display for SketchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room { needed, lent } => {
                write!(f, "room for {needed} numbers is needed, {lent} were lent")
            }
            Self::Width { expected, found } => {
                write!(f, "errors of {found} numbers, the sketch has {expected}")
            }
            Self::Shape(shape) => shape.fmt(f),
            Self::Errors(error) => write!(f, "output errors: {error}"),
            Self::Shrink(error) => write!(f, "eigenvectors of the stacked rows: {error}"),
        }
    }
}

impl core::error::Error for SketchError {}

impl From<ShapeMismatch> for SketchError {
    fn from(shape: ShapeMismatch) -> Self {
        Self::Shape(shape)
    }
}

impl From<ShapeError> for SketchError {
    fn from(error: ShapeError) -> Self {
        Self::Errors(error)
    }
}
