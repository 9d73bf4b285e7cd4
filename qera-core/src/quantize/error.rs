//! Why the grids refuse a format or a weight.

use core::fmt;

/// Why a format does not exist, or why a weight was not quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GridError {
    /// The width of an element is outside 2 to 8 bits.
    ElementBits {
        /// The width that was asked for.
        element_bits: u32,
    },
    /// The blocks have no elements.
    BlockSize,
    /// An int format has blocks of another size than 32, 64 or 128.
    IntBlockSize {
        /// The size that was asked for.
        block_size: usize,
    },
    /// The values do not form whole rows, or rows have no values.
    Length {
        /// How many values there are.
        values: usize,
        /// How many a row has.
        in_features: usize,
    },
    /// An output, a list of levels, or packed input does not have the length that the shape asks
    /// for.
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
    /// A packed scale is infinite, NaN or 0, or less than 0 where the format has no such scale.
    Scale {
        /// Its row.
        row: usize,
        /// Its block within the row.
        block: usize,
    },
    /// A block has levels that its format cannot give.
    Levels {
        /// Their row.
        row: usize,
        /// Their block within the row.
        block: usize,
    },
    /// A value is not one of its block's levels.
    OffGrid {
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
}

impl fmt::Display for GridError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ElementBits { element_bits } => {
                write!(f, "element_bits {element_bits} is not 2 to 8")
            }
            Self::BlockSize => write!(f, "block_size is 0"),
            Self::IntBlockSize { block_size } => {
                write!(f, "block_size {block_size} is not 32, 64 or 128")
            }
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
            Self::Scale { row, block } => {
                write!(
                    f,
                    "scale of row {row}, block {block} is none of this format"
                )
            }
            Self::Levels { row, block } => {
                write!(
                    f,
                    "levels of row {row}, block {block} are none of this format"
                )
            }
            Self::OffGrid { row, column } => {
                write!(
                    f,
                    "value at row {row}, column {column} is none of its block's levels"
                )
            }
        }
    }
}

impl core::error::Error for GridError {}
