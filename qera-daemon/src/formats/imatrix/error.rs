//! Why bytes are no importance matrix, or two are not of one model.

use crate::formats::gguf::error::{GgufError, Quoted};
use crate::formats::gguf::writer::GgufWriteError;
use crate::formats::imatrix::ImatrixEntry;

/// Why; a sentence that goes after the file's path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ImatrixError {
    /// Its container is broken; or, without the magic number of GGUF, it is no .dat.
    #[error("{0}")]
    Container(#[from] GgufError),
    /// Neither layout.
    #[error(
        "no imatrix: it does not begin with \"GGUF\", and as a .dat it would have {0} weights in its first 4 bytes; 1 or more are allowed"
    )]
    Neither(i32),
    /// A file of another kind.
    #[error("no imatrix: it is a safetensors file")]
    Safetensors,
    /// A GGUF of something else.
    #[error("no imatrix: its general.type is '{0}'; 'imatrix' is expected")]
    Kind(Quoted),
    /// An imatrix of nothing.
    #[error("no imatrix: it has no weight with sums (NAME.in_sum2 and NAME.counts)")]
    Empty,
    /// Sums or counts of another type.
    #[error("tensor '{tensor}' has type {found} of ggml; sums and counts are F32, type 0")]
    Type {
        /// Its name.
        tensor: Quoted,
        /// As the file says.
        found: u32,
    },
    /// Sums without counts, or counts without sums.
    #[error("weight '{weight}' has no tensor '{weight}{suffix}'")]
    Missing {
        /// Its name.
        weight: Quoted,
        /// Of the tensor.
        suffix: &'static str,
    },
    /// Tensors of one weight that do not go together.
    #[error(
        "tensor '{tensor}' has the dimensions {found:?}; its weight's sums of squares ask for {expected:?}"
    )]
    Shape {
        /// Its name.
        tensor: Quoted,
        /// As the file says.
        found: Vec<usize>,
        /// What would fit.
        expected: Vec<usize>,
    },
    /// A length of a .dat that is none.
    #[error("weight {index} (counted from 0) has {found} {what}; {least} or more are allowed")]
    Length {
        /// Of the weight.
        index: u64,
        /// As the file says.
        found: i32,
        /// Of what.
        what: &'static str,
        /// Least.
        least: i32,
    },
    /// A weight that comes twice in a .dat.
    #[error("weight '{0}' comes twice")]
    Twice(Quoted),
    /// A number of the trailer of a .dat.
    #[error("{what} are {found}; 0 or more, and at most a u32, are allowed")]
    Number {
        /// Of what.
        what: &'static str,
        /// As it was found.
        found: i128,
    },
    /// Bytes behind the end of a .dat.
    #[error("{0} bytes are left behind its last field")]
    Trailing(usize),
    /// A sum or a count that is none.
    #[error("tensor '{tensor}': number {index} (counted from 0) is {value:?}; {allowed}")]
    Value {
        /// Its name.
        tensor: Quoted,
        /// Of the number in it.
        index: usize,
        /// As it was found.
        value: f64,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Sums of no rows.
    #[error(
        "weight '{weight}': matrix {matrix} (counted from 0) has a count of 0 and yet a sum of {sum:?} at channel {channel}"
    )]
    Uncounted {
        /// Its name.
        weight: Quoted,
        /// Its expert.
        matrix: usize,
        /// The channel.
        channel: usize,
        /// Its sum.
        sum: f64,
    },
    /// Two files of different models.
    #[error(
        "weight '{weight}' has {matrices} x {width} channels here and {others_matrices} x {others_width} in the file that is added: they are not of one model"
    )]
    Unlike {
        /// Its name.
        weight: Quoted,
        /// Here.
        matrices: usize,
        /// Here.
        width: usize,
        /// There.
        others_matrices: usize,
        /// There.
        others_width: usize,
    },
    /// Rows and chunks.
    #[error(
        "one file counts rows, another (.dat) counts chunks, and no imatrix.chunk_size says how many rows a chunk has: give one of them"
    )]
    UnitsUnlike,
    /// Rows are asked for where chunks were counted.
    #[error("it counts chunks (.dat), and how many rows a chunk has is not known")]
    RowsUnknown,
    /// It cannot be written.
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
