//! Why a sum over rows is refused, with the shard that it is in.

use crate::source::sum_names::{XTX, XTX_ROWS, XTX_WEIGHT};

/// A sum that is none, or not enough for the method.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BadSum {
    /// A part of a sum without the sum.
    #[error(
        "tensor '{key}' belongs to no sum of the shard: KEY{XTX} and KEY{XTX_ROWS} are what a sum is"
    )]
    Alone {
        /// Tensor.
        key: String,
    },
    /// Nobody says of how many rows it is.
    #[error("sum '{key}{XTX}' has no '{key}{XTX_ROWS}', an I64 that says of how many rows it is")]
    Uncounted {
        /// Module.
        key: String,
    },
    /// A part of another type or shape.
    #[error("tensor '{key}' is {found}; {expected} expected")]
    Form {
        /// Tensor.
        key: String,
        /// Type and shape in the header.
        found: String,
        /// Type and shape that are read.
        expected: String,
    },
    /// No number of rows.
    #[error("'{key}{XTX_ROWS}' is {rows}: a sum is of 1 to 2^40 rows")]
    Count {
        /// Module.
        key: String,
        /// What stands there.
        rows: i64,
    },
    /// Weights that no rows have.
    #[error(
        "'{key}{XTX_WEIGHT}' has the sum {sum:?} and the sum of squares {squares:?}: no weights of {rows} rows have these"
    )]
    Weights {
        /// Module.
        key: String,
        /// Sum of the weights.
        sum: f64,
        /// Sum of their squares.
        squares: f64,
        /// Rows.
        rows: u64,
    },
    /// An entry that is not finite.
    #[error("sum '{key}{XTX}': entry ({row}, {column}) is {value:?}")]
    NotFinite {
        /// Module.
        key: String,
        /// Row of the triangle.
        row: usize,
        /// Column, at least the row.
        column: usize,
        /// The entry.
        value: f64,
    },
    /// A sum of squares that is negative, or of larger numbers than rows may have.
    #[error(
        "sum '{key}{XTX}': the sum of squares of channel {channel} is {value:?}; 0 to {most:?} expected"
    )]
    Square {
        /// Module.
        key: String,
        /// Channel.
        channel: usize,
        /// What stands on the diagonal.
        value: f64,
        /// What rows of the largest numbers that are read would have.
        most: f64,
    },
    /// A matrix that is no sum of x^T x, though each of its entries could be.
    #[error(
        "sum '{key}{XTX}' is no sum of x^T x: with the squares of its channels scaled to 1 it has the eigenvalue {value:.3e}, where none is below 0"
    )]
    Indefinite {
        /// Module.
        key: String,
        /// The eigenvalue.
        value: f64,
    },
    /// An entry that no rows with these squares have.
    #[error(
        "sum '{key}{XTX}': entry ({row}, {column}) is {value:?}, and by the sums of squares of both channels at most {most:?}"
    )]
    Product {
        /// Module.
        key: String,
        /// Row of the triangle.
        row: usize,
        /// Column, at least the row.
        column: usize,
        /// The entry.
        value: f64,
        /// The square root of the product of both diagonal entries.
        most: f64,
    },
    /// A statistic of a channel that the others do not allow.
    #[error(
        "'{key}': {value:?} for channel {channel}; by the other sums {least:?} to {most:?} expected"
    )]
    Channel {
        /// Tensor.
        key: String,
        /// Channel.
        channel: usize,
        /// What stands there.
        value: f64,
        /// Least that it can be.
        least: f64,
        /// Most that it can be.
        most: f64,
    },
    /// Two layers of one site with different sums.
    #[error(
        "sums '{first}{XTX}' and '{second}{XTX}' share one input but differ in {what}; if they read different inputs, list them apart in qera.shares"
    )]
    Differ {
        /// First module.
        first: String,
        /// Second module.
        second: String,
        /// Which part, and where.
        what: String,
    },
    /// What the method needs is not there.
    #[error(
        "sum '{key}{XTX}' comes without '{key}{missing}', which --method {method} is made of: let the shards have it, or choose another method"
    )]
    Missing {
        /// Module.
        key: String,
        /// What follows its name in that of the missing tensor.
        missing: &'static str,
        /// Name of the method.
        method: &'static str,
    },
}
