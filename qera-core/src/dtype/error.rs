//! What decoding refuses.

use super::magnitude::MAGNITUDE_MAX;
use core::fmt;

/// Why bytes are not rows, or not weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DecodeError {
    /// The bytes do not form whole rows, or rows have no bytes.
    Length {
        /// How many bytes were given.
        bytes: usize,
        /// How many a row has.
        row_bytes: usize,
    },
    /// A value is infinite or NaN.
    NonFinite {
        /// Row of the input; 0 for weights.
        row: usize,
        /// Column of the input; the index for weights.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A value is finite but above [`MAGNITUDE_MAX`]: its products would overflow f32.
    ProductOverflow {
        /// Row of the input.
        row: usize,
        /// Column of the input.
        column: usize,
        /// The value.
        value: f32,
    },
    /// The mask does not have one byte for each row.
    MaskLength {
        /// How many bytes the mask has.
        mask: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// The output does not have room for what is kept (weights: is not exactly as long).
    OutputLength {
        /// How many numbers are needed.
        needed: usize,
        /// How many were lent.
        lent: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { bytes, row_bytes } => {
                write!(f, "{bytes} bytes are not whole rows of {row_bytes} bytes")
            }
            Self::NonFinite { row, column, value } => {
                write!(f, "{value} at row {row}, column {column}")
            }
            Self::ProductOverflow { row, column, value } => write!(
                f,
                "{value:e} at row {row}, column {column} is above {MAGNITUDE_MAX:e}: its f32 products would overflow"
            ),
            Self::MaskLength { mask, rows } => write!(f, "a mask of {mask} bytes for {rows} rows"),
            Self::OutputLength { needed, lent } => {
                write!(f, "{needed} numbers do not fit the {lent} lent")
            }
        }
    }
}

impl core::error::Error for DecodeError {}
