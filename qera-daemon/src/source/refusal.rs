//! A shard that is set aside, and why: the run goes on without it.

use std::io::{Error as IoError, ErrorKind};
use std::path::Path;

use crate::disk::tried::is_failure;
use crate::error::Fatal;
use crate::formats::safetensors::header::HeaderError;
use crate::source::bad_sum::BadSum;
use crate::weights::linears::ListedLinear;
use crate::weights::passed_over::Why;

/// The largest in_features where no checkpoint says how large it is. No layer is as wide, and sums
/// of products of such widths fit 64 bits. docs/layers.md states it.
pub(crate) const WIDEST: usize = 1 << 24;

/// Which shard is set aside, and why.
#[derive(Debug, thiserror::Error)]
#[error("shard {shard}: {reason}")]
pub(crate) struct Refusal {
    /// File name within the watched folder.
    pub(crate) shard: String,
    /// Why it was refused.
    pub(crate) reason: Reason,
}

/// The action in an error message about a shard that the statistics hold, or shall hold again.
pub(crate) const COUNTED: &str = "read a shard that the state counts";

impl Refusal {
    /// Returns the error if the disk did not give the shard at this path, because it is then
    /// unknown whether the file is that shard. Otherwise does nothing.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn if_failed(&self, path: &Path) -> Result<(), Fatal> {
        let error = self.reason.io_error().filter(|error| is_failure(error));
        match error.and_then(IoError::raw_os_error) {
            None => Ok(()),
            Some(code) => Err(Fatal::io(path, COUNTED)(IoError::from_raw_os_error(code))),
        }
    }
}

/// Why a shard was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Reason {
    /// The file is no complete safetensors file.
    #[error("{0}")]
    Header(#[from] HeaderError),
    /// The header could be read, but the data could not: the file changed, or the disk failed.
    #[error("tensor '{key}': {error}")]
    Read {
        /// The tensor.
        key: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// The file's name is no text, so that no message, journal or manifest can hold it.
    #[error("its name is no UTF-8 text: rename it")]
    NameNotText,
    /// There is no file under this name.
    #[error("is no file but {is}")]
    NoFile {
        /// What it is.
        is: &'static str,
    },
    /// The file was replaced or changed after its header was read.
    #[error("was replaced or changed after its header was read")]
    Changed,
    /// A key is no module of the checkpoint.
    #[error(
        "tensor '{key}' names no weight of the checkpoint; --map PATTERN=REPLACEMENT says what it is called there, --exclude '{key}' ignores it"
    )]
    UnknownModule {
        /// Tensor.
        key: String,
    },
    /// A key is a GGUF's name, and the model belongs to no listed family.
    #[error(
        "tensor '{key}' is a GGUF's name, and what a GGUF calls the layers of this checkpoint is not known from config.json's model_type; --map PATTERN=REPLACEMENT says what it is called there, --exclude '{key}' ignores it"
    )]
    NoFamily {
        /// Tensor.
        key: String,
    },
    /// The names fit the checkpoint in more than one way.
    #[error(
        "its names fit the checkpoint under more than one prefix; say which: {}",
        options.join(" or ")
    )]
    AmbiguousNames {
        /// The options that would decide it.
        options: Vec<String>,
    },
    /// The model is not listed, and no shard names its class.
    #[error(
        "which class serves this model, and what it calls its layers, is not known from config.json ('{key}' is '{module}' in the checkpoint): write the class of the recorded model to the metadata qera.class"
    )]
    UnknownClass {
        /// Tensor.
        key: String,
        /// The name of its module in the checkpoint.
        module: String,
    },
    /// A tensor has rows without numbers.
    #[error("tensor '{key}' has rows of 0 numbers: no layer reads them")]
    NoWidth {
        /// Tensor.
        key: String,
    },
    /// A tensor is wider than any layer.
    #[error(
        "tensor '{key}' has rows of {in_features} numbers, at most {WIDEST} are read: no layer is as wide"
    )]
    TooWide {
        /// Tensor.
        key: String,
        /// Width of its rows.
        in_features: usize,
    },
    /// The shards before name another class or task.
    #[error("{key} is '{found}', the shards before have '{expected}'")]
    OtherClass {
        /// Metadata key.
        key: &'static str,
        /// The value in this shard.
        found: String,
        /// The value in the first shards.
        expected: String,
    },
    /// Another shard describes this linear layer otherwise.
    #[error("qera.linears: '{module}' is {found} here, and {expected} by other shards")]
    OtherLinear {
        /// Module.
        module: String,
        /// The description in this shard.
        found: ListedLinear,
        /// The other shards' description.
        expected: ListedLinear,
    },
    /// A linear layer is named too late, because the first shards fixed which layers are quantized.
    #[error(
        "'{module}' is a linear layer that the first shards did not name: let every shard list all of them in qera.linears, or begin another --state"
    )]
    LateLinear {
        /// Module.
        module: String,
    },
    /// The module's weight is not corrected, although the shard has rows for it.
    #[error("tensor '{key}' {why}")]
    NoLayer {
        /// Tensor.
        key: String,
        /// The reason.
        why: Why,
    },
    /// The element type is not decoded.
    #[error("tensor '{key}' has dtype {found}; {expected} expected")]
    WrongDtype {
        /// Tensor.
        key: String,
        /// Type in the header.
        found: String,
        /// Types that are read.
        expected: &'static str,
    },
    /// The shape is neither [rows, in_features] nor [batch, seq, in_features].
    #[error(
        "tensor '{key}' has shape {found:?}; in_features is {in_features}: [rows, {in_features}] or [batch, seq, {in_features}] expected"
    )]
    WrongShape {
        /// Tensor.
        key: String,
        /// Shape in the header.
        found: Vec<usize>,
        /// Width of the layer's input.
        in_features: usize,
    },
    /// A mask does not fit its tensor.
    #[error("mask '{key}' has shape {found:?}; {expected:?} expected")]
    MaskShape {
        /// Mask's key.
        key: String,
        /// Shape in the header.
        found: Vec<usize>,
        /// The tensor's shape without its last dimension.
        expected: Vec<usize>,
    },
    /// A mask is there without its rows.
    #[error("mask '{key}' belongs to no tensor of the shard")]
    MaskWithoutRows {
        /// Mask's key.
        key: String,
    },
    /// Weights do not fit their rows.
    #[error("weights '{key}' have shape {found:?}; {expected:?} expected: one number for each row")]
    WeightShape {
        /// The weights' key.
        key: String,
        /// Shape in the header.
        found: Vec<usize>,
        /// The tensor's shape without its last dimension.
        expected: Vec<usize>,
    },
    /// Weights are there without their rows.
    #[error("weights '{key}' belong to no tensor of the shard")]
    WeightsWithoutRows {
        /// The weights' key.
        key: String,
    },
    /// A mask or weights stand beside another mask or weights.
    #[error(
        "tensor '{key}' is a mask or weights of what is itself a mask or weights, and of no rows: leave it out; NAME::mask or NAME::weight stands beside the rows NAME, and rows that do not count have weight 0"
    )]
    BesideNoRows {
        /// Tensor.
        key: String,
    },
    /// A tensor has both a mask and weights.
    #[error(
        "tensor '{key}' has a mask and weights: leave the mask out and give the rows that it leaves out weight 0"
    )]
    MaskAndWeights {
        /// Tensor.
        key: String,
    },
    /// A mask holds another value than 0 and 1.
    #[error(
        "mask '{key}': {value} for row {row}; 0 leaves a row out, 1 counts it, and a weight for a row is an F32 under ::weight"
    )]
    BadMask {
        /// Mask's key.
        key: String,
        /// The row, counted over all sequences.
        row: usize,
        /// The value in the mask.
        value: u8,
    },
    /// A weight is negative or not finite.
    #[error("weights '{key}': weight {value:?} of row {row}; a weight is finite and not negative")]
    BadWeight {
        /// The weights' key.
        key: String,
        /// The row, counted over all sequences.
        row: usize,
        /// The weight.
        value: f32,
    },
    /// A row cannot be accumulated: it has NaN, infinity, or numbers so large that f32 products
    /// overflow.
    #[error("tensor '{key}': {error}")]
    BadRow {
        /// Tensor.
        key: String,
        /// The row, column and value.
        error: qera_core::dtype::DecodeError,
    },
    /// Two layers of a site have different rows.
    #[error(
        "tensors '{first}' and '{second}' share one input but differ, first in row {row}; if they read different inputs, list them apart in qera.shares"
    )]
    SiteDiffers {
        /// First tensor.
        first: String,
        /// Second tensor.
        second: String,
        /// The first row, after masking, that differs; where the numbers of rows differ, the
        /// smaller of them.
        row: usize,
    },
    /// Two layers of a site have different row weights.
    #[error(
        "tensors '{first}' and '{second}' share one input but their rows have different weights, first row {row}: give both the same, or only one of the tensors"
    )]
    SiteWeightsDiffer {
        /// First tensor.
        first: String,
        /// Second tensor.
        second: String,
        /// The first row, after rows of weight 0 are left out, whose weights differ.
        row: usize,
    },
    /// The shard has more rows than the memory budget has room for at a time.
    #[error(
        "needs {needed} of memory, {left} are left of the budget: write smaller shards, or give more"
    )]
    TooLarge {
        /// The bytes needed, formatted.
        needed: String,
        /// The bytes left, formatted.
        left: String,
    },
    /// A sum over rows is invalid.
    #[error("{0}")]
    Sum(#[from] BadSum),
    /// The shard was made for another model.
    #[error("qera.model is '{found}', the checkpoint is {}", expected.join(" or "))]
    OtherModel {
        /// The shard's metadata.
        found: String,
        /// Names of the checkpoint.
        expected: Vec<String>,
    },
    /// Under tensor parallelism the inputs of a row-parallel layer are slices, and no whole rows.
    #[error(
        "tensor '{key}' was recorded with qera.tp_size {tp_size}: the inputs of o_proj and down_proj are then sharded"
    )]
    TensorParallel {
        /// Tensor.
        key: String,
        /// The number of ranks.
        tp_size: u64,
    },
    /// A metadata value cannot be read.
    #[error("metadata {key} = '{value}': {problem}")]
    Metadata {
        /// Metadata key.
        key: &'static str,
        /// The metadata value.
        value: String,
        /// What is wrong with the value.
        problem: String,
    },
}

impl Reason {
    /// The system's error, where that is the reason.
    #[must_use]
    pub(crate) const fn io_error(&self) -> Option<&IoError> {
        match self {
            Self::Header(HeaderError::Io(error)) | Self::Read { error, .. } => Some(error),
            _ => None,
        }
    }

    /// Whether the disk gave no answer. Nothing is known of the shard then, and it may be whole.
    #[must_use]
    pub(crate) fn is_failure(&self) -> bool {
        self.io_error().is_some_and(is_failure)
    }

    /// Whether the file does not exist any more.
    #[must_use]
    pub(crate) fn is_gone(&self) -> bool {
        let error = self.io_error();
        error.is_some_and(|error| error.kind() == ErrorKind::NotFound)
    }

    /// Whether the reason is a contradiction between two shards, either of which would do alone.
    #[must_use]
    pub(crate) const fn is_clash(&self) -> bool {
        matches!(self, Self::OtherClass { .. } | Self::OtherLinear { .. })
    }
}
