//! The given W~ of a layer as numbers, in whatever format it is stored.

use std::path::Path;

use crate::error::Fatal;
use crate::formats::gguf::blocks::BlockError;
use crate::formats::packed::error::PackedError;
use crate::formats::packed::scheme::ZeroReading;
use crate::weights::checkpoint::refuse;
use crate::weights::given::gguf::{GgufWeight, most_left};
use crate::weights::given::packed::{MutedGroup, PackedTensor};
use crate::weights::passed_over::Why;

/// What to do about a tensor that cannot serve in a run.
pub(crate) const SKIP: &str = "--skip-broken leaves such layers out";

/// W~ of one layer.
#[derive(Debug, Clone)]
pub(crate) enum GivenTensor {
    /// A tensor of a GGUF.
    Gguf(GgufWeight),
    /// Tensors of a folder that another program packed.
    Packed(PackedTensor),
}

/// Why the numbers of a W~ cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GivenError {
    /// The error is in a block of a GGUF.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The error is in a folder of packed weights.
    #[error(transparent)]
    Packed(#[from] PackedError),
}

impl GivenTensor {
    /// The tensor's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Gguf(of) => &of.name,
            Self::Packed(of) => &of.name,
        }
    }

    /// The format: ggml's name of a type, or bits, group and scales of a packed weight.
    #[must_use]
    pub(crate) fn stored_in(&self) -> String {
        match self {
            Self::Gguf(of) => of.block_type.name().to_owned(),
            Self::Packed(of) => of.stored_in(),
        }
    }

    /// The number of bytes that it takes, scales included.
    #[must_use]
    pub(crate) fn stored_bytes(&self) -> usize {
        match self {
            Self::Gguf(of) => of.stored_bytes(),
            Self::Packed(of) => of.stored_bytes(),
        }
    }

    /// Width of its input: m.
    #[must_use]
    pub(crate) fn in_features(&self) -> usize {
        match self {
            Self::Gguf(of) => of.in_features(),
            Self::Packed(of) => of.widths().inputs,
        }
    }

    /// Width of its output: n.
    #[must_use]
    pub(crate) fn out_features(&self) -> usize {
        match self {
            Self::Gguf(of) => of.out_features(),
            Self::Packed(of) => of.widths().outputs,
        }
    }

    /// The file that holds it.
    #[must_use]
    pub(crate) fn file(&self) -> &Path {
        match self {
            Self::Gguf(of) => of.file(),
            Self::Packed(of) => of.file(),
        }
    }

    /// The largest relative error that its format explains.
    #[must_use]
    pub(crate) fn most_left(&self) -> f64 {
        match self {
            Self::Gguf(of) => most_left(of.block_type),
            Self::Packed(of) => of.most_left(),
        }
    }

    /// Reads columns of W~ from `first` on, as many as `values` holds.
    ///
    /// # Errors
    /// [`GivenError`] for a number that is not finite.
    pub(crate) fn columns(&self, first: usize, values: &mut [f32]) -> Result<(), GivenError> {
        match self {
            Self::Gguf(of) => Ok(of.columns(first, values)?),
            Self::Packed(of) => Ok(of.columns(first, values)?),
        }
    }

    /// How its zero points are read, where there are two readings.
    #[must_use]
    pub(crate) fn zero_points(&self) -> Option<ZeroReading> {
        match self {
            Self::Gguf(_) => None,
            Self::Packed(of) => of.zero_points(),
        }
    }

    /// The same with the other reading of zero points; `None` where there is only one.
    #[must_use]
    pub(crate) fn read_otherwise(&self) -> Option<Self> {
        match self {
            Self::Gguf(_) => None,
            Self::Packed(of) => of.read_otherwise().map(Self::Packed),
        }
    }

    /// A group whose scale is 0 although W, given by columns, is not.
    #[must_use]
    pub(crate) fn muted(&self, original: &[f32]) -> Option<MutedGroup> {
        match self {
            // A GGUF may have blocks of zeros: its makers write a scale of 0 where numbers are
            // small.
            Self::Gguf(_) => None,
            Self::Packed(of) => of.muted(original),
        }
    }

    /// Why the layer is left out where this is broken.
    #[must_use]
    pub(crate) const fn why_broken(&self) -> Why {
        match self {
            Self::Gguf(_) => Why::GivenNotFinite,
            Self::Packed(_) => Why::GivenBadScale,
        }
    }
}

/// Refuses a tensor that has NaN, infinity or scales of 0, and says what to do.
pub(crate) fn broken(of: &GivenTensor, error: &str, advice: &str) -> Fatal {
    refuse_tensor(of, &format!("{error}; {advice}"))
}

/// Refuses a tensor, by file and name.
pub(crate) fn refuse_tensor(of: &GivenTensor, reason: &str) -> Fatal {
    let reason = format!("tensor '{}' ({}): {reason}", of.name(), of.stored_in());
    refuse(of.file(), reason)
}
