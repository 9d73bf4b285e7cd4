//! The one way in which a lent matrix or slice can have the wrong shape.

use core::fmt;

/// A lent matrix has other dimensions than the routine needs. A slice counts as one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Name of the argument.
    pub operand: &'static str,
    /// Rows and columns needed.
    pub expected: (usize, usize),
    /// Rows and columns lent.
    pub got: (usize, usize),
}

impl fmt::Display for ShapeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, columns) = self.expected;
        let (got_rows, got_columns) = self.got;
        write!(
            f,
            "`{}` must be {rows} x {columns}, but is {got_rows} x {got_columns}",
            self.operand
        )
    }
}

impl core::error::Error for ShapeMismatch {}

pub(crate) fn expect_shape(
    operand: &'static str,
    expected: (usize, usize),
    got: (usize, usize),
) -> Result<(), ShapeMismatch> {
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
