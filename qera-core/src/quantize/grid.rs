//! Any of the formats, for whoever rounds weights and need not know which.

use core::fmt;

use super::{Candidates, Mxint, MxintError};

/// A format of weights whose blocks have evenly spaced levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grid {
    /// Integers that share a power of two.
    Mxint(Mxint),
}

impl Grid {
    /// Returns how many neighbours along in_features have levels of their own.
    #[must_use]
    pub const fn block_size(&self) -> usize {
        match self {
            Self::Mxint(mxint) => mxint.block_size(),
        }
    }

    /// Returns the levels that a block of these values may be given, those of nearest rounding
    /// first.
    ///
    /// # Shapes
    /// `values` are the at most [`block_size`](Self::block_size) values of one block, finite.
    #[must_use]
    pub fn candidates(&self, values: &[f32]) -> Candidates {
        match self {
            Self::Mxint(mxint) => mxint.candidates(values),
        }
    }

    /// Writes the weight rounded to nearest: W~.
    ///
    /// # Shapes
    /// `weight` is `[out_features, in_features]`, row-major; `out` is as long. Blocks never cross a
    /// row.
    ///
    /// # Errors
    /// As [`Mxint::quantize_dequantize`].
    pub fn quantize_dequantize(
        &self,
        weight: &[f32],
        in_features: usize,
        out: &mut [f32],
    ) -> Result<(), MxintError> {
        match self {
            Self::Mxint(mxint) => mxint.quantize_dequantize(weight, in_features, out),
        }
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mxint(mxint) => mxint.fmt(f),
        }
    }
}
