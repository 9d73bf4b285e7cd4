//! INT: blocks of integers with a free scale, symmetric or with a zero point.
//!
//! # Definition
//! A row is cut into blocks of 32, 64 or 128 along in_features. With b = element_bits a block's
//! values are `s (c - z)` for codes c of b bits:
//!
//! | | codes c | z | s of nearest rounding, before it is rounded to its type |
//! |---|---|---|---|
//! | symmetric | -2^(b-1) to 2^(b-1) - 1 | 0 | 2 max \|x\| / (2^b - 1) |
//! | with zero points | 0 to 2^b - 1 | half_even(-min / s), 0 to 2^b - 1 | (max - min) / (2^b - 1) |
//!
//! min and max count 0 in, so that 0 is always a level. s is computed in f64, rounded to f32 and
//! then to the type in which it is stored: f16, bf16 or f32. It is at least 2^-24 in f16 (its least
//! number) and 2^-100 else, so that 1 / s is finite; at most what keeps every level finite. An
//! integer is half_even(fl(x / s)), cut off at both ends, and a value fl(s (c - z)), both in f32.
//!
//! Rounding that searches has three finer scales: .9, .8 and .7 times that of nearest, each rounded
//! to the type; the zero point stays, because the range shrinks about 0.
//!
//! Cost: about 10 flops an element in two passes over a block. Error: half a step for what is not
//! cut off; the largest magnitude, when it is positive, lies half a step beyond the highest level
//! of a symmetric block. Source: the scale of GPTQ's quantizer and of compressed-tensors for
//! weights of type int, strategy group; beyond their formats nothing of it is standard.

mod scale;

use core::fmt;

use super::blocks::quantize_blocks;
use super::error::GridError;
use super::levels::Candidates;
use crate::dtype::FloatDtype;

/// The factors by which the scale of nearest rounding is multiplied to get a block's
/// [`Candidates`].
pub(super) const SHRUNK: [f64; Candidates::MOST] = [1.0, 0.9, 0.8, 0.7];

/// The INT format of some width, block size and type of scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Int {
    element_bits: u32,
    block_size: usize,
    scale_dtype: FloatDtype,
    zero_points: bool,
}

impl Int {
    /// Checks and names a symmetric format.
    ///
    /// # Errors
    /// [`GridError::ElementBits`] outside 2 to 8, [`GridError::IntBlockSize`] for a block that is
    /// not of 32, 64 or 128.
    ///
    /// ```
    /// use qera_core::{dtype::FloatDtype, quantize::{GridError, Int}};
    /// assert_eq!(Int::new(4, 64, FloatDtype::F16)?.element_bits(), 4);
    /// let refused = Int::new(4, 16, FloatDtype::F16);
    /// assert_eq!(refused, Err(GridError::IntBlockSize { block_size: 16 }));
    /// # Ok::<(), GridError>(())
    /// ```
    pub const fn new(
        element_bits: u32,
        block_size: usize,
        scale_dtype: FloatDtype,
    ) -> Result<Self, GridError> {
        if element_bits < 2 || element_bits > 8 {
            return Err(GridError::ElementBits { element_bits });
        }
        if !matches!(block_size, 32 | 64 | 128) {
            return Err(GridError::IntBlockSize { block_size });
        }
        Ok(Self {
            element_bits,
            block_size,
            scale_dtype,
            zero_points: false,
        })
    }

    /// Gives each block a zero point, too.
    ///
    /// ```
    /// use qera_core::{dtype::FloatDtype, quantize::Int};
    /// let int4 = Int::new(4, 64, FloatDtype::F16)?;
    /// assert!(int4.with_zero_points().has_zero_points() && !int4.has_zero_points());
    /// assert_eq!(int4.with_zero_points().scale_dtype(), FloatDtype::F16);
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    #[must_use]
    pub const fn with_zero_points(self) -> Self {
        Self {
            zero_points: true,
            ..self
        }
    }

    /// Returns the bits of a code.
    #[must_use]
    pub const fn element_bits(&self) -> u32 {
        self.element_bits
    }

    /// Returns how many elements share a scale.
    #[must_use]
    pub const fn block_size(&self) -> usize {
        self.block_size
    }

    /// Returns the type of a scale.
    #[must_use]
    pub const fn scale_dtype(&self) -> FloatDtype {
        self.scale_dtype
    }

    /// Says whether blocks have a zero point each.
    #[must_use]
    pub const fn has_zero_points(&self) -> bool {
        self.zero_points
    }

    /// Returns the levels that may be chosen for a block of these values, those of nearest rounding
    /// first (module documentation).
    ///
    /// # Shapes
    /// `values` are the at most [`block_size`](Self::block_size) values of one block, finite.
    ///
    /// ```
    /// use qera_core::{dtype::FloatDtype, quantize::Int};
    /// let int2 = Int::new(2, 32, FloatDtype::F32)?;
    /// let candidates = int2.candidates(&[-3.0, 1.0]);
    /// let steps: [f32; 4] = core::array::from_fn(|i| candidates.as_slice()[i].step);
    /// assert_eq!(steps, [2.0, 1.8, 1.6, 1.4]);
    /// let first = int2.with_zero_points().candidates(&[-3.0, 1.5]).first();
    /// assert_eq!((first.step, first.lowest, first.highest), (1.5, -2.0, 1.0));
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    #[must_use]
    pub fn candidates(&self, values: &[f32]) -> Candidates {
        let (mut min, mut max) = (0.0_f32, 0.0_f32);
        for &x in values {
            (min, max) = (min.min(x), max.max(x));
        }
        let (min, max) = (f64::from(min), f64::from(max));
        let span = if self.zero_points {
            max - min
        } else {
            2.0 * max.max(-min)
        };
        let largest = f64::from(self.largest_code());
        let nearest = f64::from(self.rounded_scale(span / largest));
        let zero_point = if self.zero_points {
            libm::rint(-min / nearest).clamp(0.0, largest)
        } else {
            f64::from(self.half())
        };
        let levels =
            SHRUNK.map(|factor| self.levels(self.rounded_scale(factor * nearest), zero_point));
        Candidates::new(levels, levels.len())
    }

    /// Writes the weight rounded to nearest: W~.
    ///
    /// # Shapes
    /// `weight` is `[out_features, in_features]`, row-major; `out` is as long. Blocks never cross a
    /// row; the last one of a row may be shorter.
    ///
    /// # Errors
    /// [`GridError::Length`], [`GridError::OutputLength`]; [`GridError::NonFinite`] for the first
    /// infinite or NaN weight, `out` holding unspecified numbers then.
    ///
    /// ```
    /// use qera_core::{dtype::FloatDtype, quantize::Int};
    /// let mut out = [0.0; 3];
    /// Int::new(4, 32, FloatDtype::F16)?.quantize_dequantize(&[7.5, -3.2, -1.4], 3, &mut out)?;
    /// assert_eq!(out, [7.0, -3.0, -1.0]); // The scale is 1: 7.5 is cut off.
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    pub fn quantize_dequantize(
        &self,
        weight: &[f32],
        in_features: usize,
        out: &mut [f32],
    ) -> Result<(), GridError> {
        quantize_blocks(weight, in_features, self.block_size, out, |values, out| {
            let levels = self.candidates(values).first();
            for (quantized, &x) in out.iter_mut().zip(values) {
                *quantized = levels.nearest(x);
            }
            values.iter().all(|x| x.is_finite())
        })
    }

    /// Returns 2^b - 1.
    const fn largest_code(&self) -> u8 {
        u8::MAX >> (8 - self.element_bits)
    }

    /// Returns 2^(b-1).
    const fn half(&self) -> u8 {
        1 << (self.element_bits - 1)
    }
}

impl fmt::Display for Int {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bits, block_size) = (self.element_bits, self.block_size);
        write!(
            f,
            "int{bits}, block_size {block_size}, scales {}",
            self.scale_dtype
        )?;
        if self.zero_points {
            f.write_str(", zero points")?;
        }
        Ok(())
    }
}
