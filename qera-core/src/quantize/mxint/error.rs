//! What [`Mxint`](super::Mxint) refuses.

use core::fmt;

/// Why a format is none, or a weight was not quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MxintError {
    /// A width outside 2 to 8.
    ElementBits {
        /// The width.
        element_bits: u32,
    },
    /// Blocks of no elements.
    BlockSize,
    /// The values do not form whole rows, or rows have no values.
    Length {
        /// How many values there are.
        values: usize,
        /// How many a row has.
        in_features: usize,
    },
    /// An output, or packed input, does not have the length that the shape asks for.
    OutputLength {
        /// How many elements it must have.
        needed: usize,
        /// How many it has.
        lent: usize,
    },
    /// A weight is infinite or NaN.
    NonFinite {
        /// Its place in the slice.
        index: usize,
        /// Its row, the out feature.
        row: usize,
        /// Its column, the in feature.
        column: usize,
    },
    /// A packed code is the most negative integer, which no weight quantizes to.
    Code {
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// A shared exponent is 255, the NaN of E8M0.
    SharedExponent {
        /// Its row.
        row: usize,
        /// Its block within the row.
        block: usize,
    },
}

impl fmt::Display for MxintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ElementBits { element_bits } => {
                write!(f, "element_bits {element_bits} is not 2 to 8")
            }
            Self::BlockSize => write!(f, "block_size is 0"),
            Self::Length {
                values,
                in_features,
            } => write!(
                f,
                "{values} values are not whole rows of in_features {in_features}"
            ),
            Self::OutputLength { needed, lent } => {
                write!(f, "{needed} elements are needed, {lent} were lent")
            }
            Self::NonFinite { index, row, column } => {
                write!(
                    f,
                    "weight {index} (row {row}, column {column}) is not finite"
                )
            }
            Self::Code { row, column } => write!(
                f,
                "code at row {row}, column {column} is the most negative integer"
            ),
            Self::SharedExponent { row, block } => {
                write!(f, "shared exponent of row {row}, block {block} is NaN")
            }
        }
    }
}

impl core::error::Error for MxintError {}
