//! W~ of one layer as numbers, whatever it is stored in.

use std::path::Path;

use crate::formats::gguf::blocks::BlockError;
use crate::weights::given::gguf::{GgufWeight, most_left};

/// W~ of one layer.
#[derive(Debug, Clone)]
pub(crate) enum GivenTensor {
    /// A tensor of a GGUF.
    Gguf(GgufWeight),
}

/// Why W~ is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GivenError {
    /// In a GGUF.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl GivenTensor {
    /// The tensor's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Gguf(of) => &of.name,
        }
    }

    /// What it is stored in: ggml's name of a type.
    #[must_use]
    pub(crate) fn stored_in(&self) -> String {
        match self {
            Self::Gguf(of) => of.block_type.name().to_owned(),
        }
    }

    /// Width of its input: m.
    #[must_use]
    pub(crate) fn in_features(&self) -> usize {
        match self {
            Self::Gguf(of) => of.in_features(),
        }
    }

    /// Width of its output: n.
    #[must_use]
    pub(crate) fn out_features(&self) -> usize {
        match self {
            Self::Gguf(of) => of.out_features(),
        }
    }

    /// The file that it lies in.
    #[must_use]
    pub(crate) fn file(&self) -> &Path {
        match self {
            Self::Gguf(of) => of.file(),
        }
    }

    /// The relative error that what it is stored in leaves at most.
    #[must_use]
    pub(crate) fn most_left(&self) -> f64 {
        match self {
            Self::Gguf(of) => most_left(of.block_type),
        }
    }

    /// Columns of W~ from one on, as many as `values` takes.
    ///
    /// # Errors
    /// [`GivenError`] for what is no finite number.
    pub(crate) fn columns(&self, first: usize, values: &mut [f32]) -> Result<(), GivenError> {
        match self {
            Self::Gguf(of) => Ok(of.columns(first, values)?),
        }
    }
}
