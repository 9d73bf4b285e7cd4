//! Why bytes are no importance matrix, or two importance matrices are of different models.

use crate::formats::gguf::error::{GgufError, Quoted};
use crate::formats::gguf::writer::GgufWriteError;
use crate::formats::imatrix::ImatrixEntry;

/// Why an imatrix is refused. It displays as a sentence that follows the file's path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ImatrixError {
    /// The container is broken; without GGUF's first bytes it is no .dat either.
    #[error("{0}")]
    Container(#[from] GgufError),
    /// The bytes have neither layout.
    #[error(
        "no imatrix: it does not begin with \"GGUF\", and as a .dat it would have {0} weights in its first 4 bytes; 1 or more are allowed"
    )]
    Neither(i32),
    /// The file is a safetensors file.
    #[error("no imatrix: it is a safetensors file")]
    Safetensors,
    /// The GGUF holds something else.
    #[error("no imatrix: its general.type is '{0}'; 'imatrix' is expected")]
    Kind(Quoted),
    /// The imatrix has no entry.
    #[error("no imatrix: it has no weight with sums (NAME.in_sum2 and NAME.counts)")]
    Empty,
    /// Sums or counts have another type than F32.
    #[error("tensor '{tensor}' has type {found} of ggml; sums and counts are F32, type 0")]
    Type {
        /// The tensor's name.
        tensor: Quoted,
        /// The type in the file.
        found: u32,
    },
    /// A weight has sums without counts, or counts without sums.
    #[error("weight '{weight}' has no tensor '{weight}{suffix}'")]
    Missing {
        /// The weight's name.
        weight: Quoted,
        /// The ending of the missing tensor's name.
        suffix: &'static str,
    },
    /// The tensors of a weight do not fit each other.
    #[error(
        "tensor '{tensor}' has the dimensions {found:?}; its weight's sums of squares ask for {expected:?}"
    )]
    Shape {
        /// The tensor's name.
        tensor: Quoted,
        /// The dimensions in the file.
        found: Vec<usize>,
        /// The dimensions that would fit.
        expected: Vec<usize>,
    },
    /// A length in a .dat is impossible.
    #[error("weight {index} (counted from 0) has {found} {what}; {least} or more are allowed")]
    Length {
        /// The weight's index.
        index: u64,
        /// The length in the file.
        found: i32,
        /// Which part of the file has that length.
        what: &'static str,
        /// The least length.
        least: i32,
    },
    /// A weight occurs twice in a .dat.
    #[error("weight '{0}' comes twice")]
    Twice(Quoted),
    /// A number in the trailer of a .dat is impossible.
    #[error("{what} are {found}; 0 or more, and at most a u32, are allowed")]
    Number {
        /// What the number counts.
        what: &'static str,
        /// The number that was found.
        found: i128,
    },
    /// Bytes follow the end of a .dat.
    #[error("{0} bytes are left behind its last field")]
    Trailing(usize),
    /// A sum or a count is impossible.
    #[error("tensor '{tensor}': number {index} (counted from 0) is {value:?}; {allowed}")]
    Value {
        /// The tensor's name.
        tensor: Quoted,
        /// The number's index in it.
        index: usize,
        /// The value that was found.
        value: f64,
        /// Which values are allowed.
        allowed: &'static str,
    },
    /// A sum is not 0 although no rows were counted.
    #[error(
        "weight '{weight}': matrix {matrix} (counted from 0) has a count of 0 and yet a sum of {sum:?} at channel {channel}"
    )]
    Uncounted {
        /// The weight's name.
        weight: Quoted,
        /// The index of the expert.
        matrix: usize,
        /// The channel.
        channel: usize,
        /// The channel's sum.
        sum: f64,
    },
    /// The two files are of different models.
    #[error(
        "weight '{weight}' has {matrices} x {width} channels here and {others_matrices} x {others_width} in the file that is added: they are not of one model"
    )]
    Unlike {
        /// The weight's name.
        weight: Quoted,
        /// The number of matrices in this file.
        matrices: usize,
        /// The number of channels in this file.
        width: usize,
        /// The number of matrices in the other file.
        others_matrices: usize,
        /// The number of channels in the other file.
        others_width: usize,
    },
    /// One file counts rows, and the other chunks.
    #[error(
        "one file counts rows, another (.dat) counts chunks, and no imatrix.chunk_size says how many rows a chunk has: give one of them"
    )]
    UnitsUnlike,
    /// Rows are needed, but chunks were counted.
    #[error("it counts chunks (.dat), and how many rows a chunk has is not known")]
    RowsUnknown,
    /// Writing failed.
    #[error("{0}")]
    Write(#[from] GgufWriteError),
}

impl ImatrixError {
    pub(crate) fn unlike(name: &str, own: &ImatrixEntry, other: &ImatrixEntry) -> Self {
        Self::Unlike {
            weight: Quoted::new(name),
            matrices: own.matrices(),
            width: own.width(),
            others_matrices: other.matrices(),
            others_width: other.width(),
        }
    }
}
