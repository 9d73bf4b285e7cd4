//! Why a shard is refused for one of its sums over rows.

use crate::source::sum_names::{XTX, XTX_ROWS, XTX_WEIGHT};

/// A sum that is invalid, or not enough for the method.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BadSum {
    /// A part of a sum is there without the sum.
    #[error(
        "tensor '{key}' belongs to no sum of the shard: a sum is made of KEY{XTX} and KEY{XTX_ROWS}"
    )]
    Alone {
        /// The tensor.
        key: String,
    },
    /// The number of its rows is missing.
    #[error("sum '{key}{XTX}' has no '{key}{XTX_ROWS}', an I64 that says of how many rows it is")]
    Uncounted {
        /// Module.
        key: String,
    },
    /// A part has another type or shape.
    #[error("tensor '{key}' is {found}; {expected} expected")]
    Form {
        /// The tensor.
        key: String,
        /// The type and shape in the header.
        found: String,
        /// The type and shape that are read.
        expected: String,
    },
    /// The number of rows is impossible.
    #[error("'{key}{XTX_ROWS}' is {rows}: a sum is of 1 to 2^40 rows")]
    Count {
        /// Module.
        key: String,
        /// The number in the shard.
        rows: i64,
    },
    /// No rows can have such weights.
    #[error(
        "'{key}{XTX_WEIGHT}' has the sum {sum:?} and the sum of squares {squares:?}: no weights of {rows} rows have these"
    )]
    Weights {
        /// Module.
        key: String,
        /// The sum of the weights.
        sum: f64,
        /// The sum of their squares.
        squares: f64,
        /// The number of rows.
        rows: u64,
    },
    /// An entry is not finite.
    #[error("sum '{key}{XTX}': entry ({row}, {column}) is {value:?}")]
    NotFinite {
        /// Module.
        key: String,
        /// The entry's row in the triangle.
        row: usize,
        /// The entry's column; at least the row.
        column: usize,
        /// The entry's value.
        value: f64,
    },
    /// A sum of squares is negative, or larger than rows of the largest numbers could have.
    #[error(
        "sum '{key}{XTX}': the sum of squares of channel {channel} is {value:?}; 0 to {most:?} expected"
    )]
    Square {
        /// Module.
        key: String,
        /// Channel.
        channel: usize,
        /// The diagonal element.
        value: f64,
        /// The sum of squares that rows of the largest numbers would have.
        most: f64,
    },
    /// The matrix is no sum of x^T x, although each single entry could be one.
    #[error(
        "sum '{key}{XTX}' is no sum of x^T x: with the squares of its channels scaled to 1 it has the eigenvalue {value:.3e}, where none is below 0"
    )]
    Indefinite {
        /// Module.
        key: String,
        /// The eigenvalue.
        value: f64,
    },
    /// No rows with these sums of squares have such an entry.
    #[error(
        "sum '{key}{XTX}': entry ({row}, {column}) is {value:?}, and the sums of squares of both channels allow {most:?} at most"
    )]
    Product {
        /// Module.
        key: String,
        /// The entry's row in the triangle.
        row: usize,
        /// The entry's column; at least the row.
        column: usize,
        /// The entry's value.
        value: f64,
        /// The square root of the product of both diagonal entries.
        most: f64,
    },
    /// A channel's statistic contradicts the other sums.
    #[error(
        "'{key}': {value:?} for channel {channel}; by the other sums {least:?} to {most:?} expected"
    )]
    Channel {
        /// The tensor.
        key: String,
        /// Channel.
        channel: usize,
        /// The value in the shard.
        value: f64,
        /// The least possible value.
        least: f64,
        /// The largest possible value.
        most: f64,
    },
    /// Two layers of a site have different sums.
    #[error(
        "sums '{first}{XTX}' and '{second}{XTX}' share one input but differ in {what}; if they read different inputs, list them apart in qera.shares"
    )]
    Differ {
        /// The first module.
        first: String,
        /// The second module.
        second: String,
        /// Which part differs, and where.
        what: String,
    },
    /// Output errors are sketched, which takes rows.
    #[error(
        "sum '{key}{XTX}': output errors are sketched from rows, a sum has none: record rows, or gather with --statistics full"
    )]
    Sketched {
        /// Module.
        key: String,
    },
    /// The sum lacks what the method needs.
    #[error(
        "sum '{key}{XTX}' comes without '{key}{missing}', which --method {method} needs: record it, too, or choose another method"
    )]
    Missing {
        /// Module.
        key: String,
        /// The ending of the missing tensor's name.
        missing: &'static str,
        /// The method's name.
        method: &'static str,
    },
}
