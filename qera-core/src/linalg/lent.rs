//! What a caller lends: matrices and slices of a shape, scratch memory that is checked once and
//! then cut into named parts.

use core::fmt;

use nalgebra::{Dyn, Matrix, RawStorage};

/// Rows and columns. A slice counts as one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.rows, self.columns)
    }
}

/// A lent matrix or slice has other dimensions than the routine needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Name of the argument.
    pub operand: &'static str,
    /// What is needed.
    pub expected: Shape,
    /// What was lent.
    pub got: Shape,
}

impl fmt::Display for ShapeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` must be {}, but is {}",
            self.operand, self.expected, self.got
        )
    }
}

impl core::error::Error for ShapeMismatch {}

/// Refuses a matrix of other dimensions.
pub(crate) fn expect_matrix<S: RawStorage<f64, Dyn, Dyn>>(
    operand: &'static str,
    matrix: &Matrix<f64, Dyn, Dyn, S>,
    rows: usize,
    columns: usize,
) -> Result<(), ShapeMismatch> {
    let got = Shape {
        rows: matrix.nrows(),
        columns: matrix.ncols(),
    };
    expect_shape(operand, Shape { rows, columns }, got)
}

/// Refuses a slice of another length.
pub(crate) fn expect_length(
    operand: &'static str,
    slice: &[f64],
    length: usize,
) -> Result<(), ShapeMismatch> {
    let column = |rows| Shape { rows, columns: 1 };
    expect_shape(operand, column(length), column(slice.len()))
}

fn expect_shape(operand: &'static str, expected: Shape, got: Shape) -> Result<(), ShapeMismatch> {
    if expected == got {
        Ok(())
    } else {
        Err(ShapeMismatch {
            operand,
            expected,
            got,
        })
    }
}

/// The lent workspace is shorter than the routine's `..._workspace_len` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceTooSmall {
    /// Number of `f64` the routine needs; `usize::MAX` when the sizes overflow the address space.
    pub needed: usize,
    /// Number of `f64` lent.
    pub lent: usize,
}

impl fmt::Display for WorkspaceTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the workspace must hold {} f64, but holds {}",
            self.needed, self.lent
        )
    }
}

impl core::error::Error for WorkspaceTooSmall {}

/// A checked workspace. `take` hands out disjoint parts in order; their sizes add up to the checked
/// length.
#[derive(Debug)]
pub(crate) struct Workspace<'w>(&'w mut [f64]);

impl<'w> Workspace<'w> {
    pub(crate) const fn new(lent: &'w mut [f64], needed: usize) -> Result<Self, WorkspaceTooSmall> {
        if lent.len() < needed {
            return Err(WorkspaceTooSmall {
                needed,
                lent: lent.len(),
            });
        }
        Ok(Self(lent))
    }

    pub(crate) fn take(&mut self, len: usize) -> &'w mut [f64] {
        let (part, rest) = core::mem::take(&mut self.0).split_at_mut(len);
        self.0 = rest;
        part
    }
}

/// Lets `?` make an error of a routine, by its variants `Shape` and `Workspace`, from what was lent
/// and does not fit.
macro_rules! from_lent {
    ($error:ty) => {
        impl From<$crate::linalg::ShapeMismatch> for $error {
            fn from(shape: $crate::linalg::ShapeMismatch) -> Self {
                Self::Shape(shape)
            }
        }

        impl From<$crate::linalg::WorkspaceTooSmall> for $error {
            fn from(workspace: $crate::linalg::WorkspaceTooSmall) -> Self {
                Self::Workspace(workspace)
            }
        }
    };
}

pub(crate) use from_lent;
