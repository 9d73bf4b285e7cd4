//! All formats behind one type, for code that rounds weights without knowing which.

use core::fmt;

use super::error::GridError;
use super::int::Int;
use super::levels::Candidates;
use super::mxint::Mxint;
use super::q4_0::Q4_0;

/// A format of weights whose blocks have evenly spaced levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grid {
    /// Integers that share a power of two.
    Mxint(Mxint),
    /// Integers with a free scale.
    Int(Int),
    /// GGUF's 16 levels with a free scale.
    Q4_0(Q4_0),
}

/// The name of a grid without its block size and scale type: `mxint4`, `int4`, `q4-0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GridName(Grid);

impl Grid {
    /// Returns the grid's name without its block size and the rest of its [`Display`](fmt::Display)
    /// text.
    ///
    /// ```
    /// use qera_core::quantize::{Grid, GridName, Q4_0};
    /// let name: GridName = Grid::Q4_0(Q4_0).name();
    /// assert_eq!(name.to_string(), "q4-0");
    /// ```
    #[must_use]
    pub const fn name(&self) -> GridName {
        GridName(*self)
    }

    /// Returns how many neighbours along in_features share their levels.
    #[must_use]
    pub const fn block_size(&self) -> usize {
        match self {
            Self::Mxint(mxint) => mxint.block_size(),
            Self::Int(int) => int.block_size(),
            Self::Q4_0(q4_0) => q4_0.block_size(),
        }
    }

    /// Returns the levels that may be chosen for a block of these values, those of nearest rounding
    /// first.
    ///
    /// # Shapes
    /// `values` are the at most [`block_size`](Self::block_size) values of one block, finite.
    #[must_use]
    pub fn candidates(&self, values: &[f32]) -> Candidates {
        match self {
            Self::Mxint(mxint) => mxint.candidates(values),
            Self::Int(int) => int.candidates(values),
            Self::Q4_0(q4_0) => q4_0.candidates(values),
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
    ) -> Result<(), GridError> {
        match self {
            Self::Mxint(mxint) => mxint.quantize_dequantize(weight, in_features, out),
            Self::Int(int) => int.quantize_dequantize(weight, in_features, out),
            Self::Q4_0(q4_0) => q4_0.quantize_dequantize(weight, in_features, out),
        }
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mxint(mxint) => mxint.fmt(f),
            Self::Int(int) => int.fmt(f),
            Self::Q4_0(q4_0) => q4_0.fmt(f),
        }
    }
}

impl fmt::Display for GridName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Grid::Mxint(mxint) => write!(f, "mxint{}", mxint.element_bits()),
            Grid::Int(int) => write!(f, "int{}", int.element_bits()),
            Grid::Q4_0(_) => f.write_str("q4-0"),
        }
    }
}
