//! Q4_0 of GGUF: 16 levels and an f16 scale a block of 32, in 18 bytes.
//!
//! # Definition
//! A block's values are `d (c - 8)` for codes c from 0 to 15 and a scale d of f16, which may be
//! negative: the levels are -8 to 7 steps, so that the side of the value of largest magnitude, m,
//! gets the eighth. With fl for the rounding of f32, nearest rounding is that of ggml's reference
//! (`quantize_row_q4_0_ref`), as its source says it:
//!
//!   d' = m / -8, i = fl(1 / d'), c = min(15, trunc(fl(fl(x i) + 8.5))), d = half_even(d' in f16),
//!
//! m the first of equal magnitudes. So a code is chosen by the scale before it was rounded, and
//! halves go up (towards m's other side where d is negative): a rule of its own, not that of
//! [`Levels::integer`]. Where a compiler joins product and sum into one rounding, ggml's own
//! programs differ from its source in rare ties. Where d rounds to 0 all values become 0, as in
//! ggml; where ggml would have an infinite d it is +-65504 here, and weights beyond 8 x 65504 are
//! cut off.
//!
//! Rounding that knows more than one value ([`candidates`](Q4_0::candidates)) uses the same levels,
//! halves to even, and may take d times .9, .8 and .7, each rounded to f16; a d that rounds to 0 is
//! 2^-24 then, the least number of f16, because its block may yet have to hold something.
//!
//! # Packed form
//! The block of GGUF: d little-endian, then 16 bytes, byte j with the code of element j in its low
//! and of element j + 16 in its high nibble. A row's last block, when it is shorter, is filled with
//! code 8, which is 0; GGUF itself has no such rows.
//!
//! Cost: about 10 flops an element in two passes over a block. Error: half a step, and a step for
//! what lies beyond the seventh level opposite m. Source: ggml, `ggml-quants.c` and
//! `ggml-common.h`; `gguf.quants` of its Python package computes the same.

mod packed;

pub(super) use packed::{
    block, block_mut, read_code, read_scale, row_len, write_code, write_scale,
};

use core::fmt;

use super::blocks::quantize_blocks;
use super::error::GridError;
use super::int::SHRUNK;
use super::levels::{Candidates, Levels};
use crate::dtype::FloatDtype;

/// How many elements a block has.
pub(super) const BLOCK: usize = 32;
/// The smallest scale, 2^-24, the least number of f16.
pub(super) const SMALLEST_SCALE: f32 = f32::from_bits((127 - 24) << 23);
const LARGEST_SCALE: f32 = 65_504.0;

/// GGUF's format Q4_0; there is only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Q4_0;

impl Q4_0 {
    /// Returns how many elements share a scale: 32.
    #[must_use]
    pub const fn block_size(&self) -> usize {
        BLOCK
    }

    /// Returns the levels that may be chosen for a block of these values (module documentation).
    ///
    /// # Shapes
    /// `values` are the at most 32 values of one block, finite.
    ///
    /// ```
    /// use qera_core::quantize::Q4_0;
    /// let levels = Q4_0.candidates(&[2.0, -4.0]).first();
    /// assert_eq!((levels.step, levels.lowest, levels.highest), (0.5, -8.0, 7.0));
    /// assert_eq!(Q4_0.candidates(&[4.0, -2.0]).first().step, -0.5);
    /// ```
    #[must_use]
    pub fn candidates(&self, values: &[f32]) -> Candidates {
        let nearest = scale(largest(values) / -8.0);
        let levels = SHRUNK.map(|factor| {
            #[expect(clippy::cast_possible_truncation, reason = "less than an f32")]
            let step = scale((factor * f64::from(nearest)) as f32);
            levels(if step == 0.0 { SMALLEST_SCALE } else { step })
        });
        Candidates::new(levels, levels.len())
    }

    /// Writes the weight rounded to nearest as ggml's reference does it: W~.
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
    /// use qera_core::quantize::Q4_0;
    /// let mut out = [0.0; 4];
    /// Q4_0.quantize_dequantize(&[0.25, 4.0, -4.0, -0.3], 4, &mut out)?;
    /// assert_eq!(out, [0.0, 4.0, -3.5, -0.5]); // d is -0.5; -0.5 steps, a half, goes up to 0
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    pub fn quantize_dequantize(
        &self,
        weight: &[f32],
        in_features: usize,
        out: &mut [f32],
    ) -> Result<(), GridError> {
        quantize_blocks(weight, in_features, BLOCK, out, |values, out| {
            self.quantize_block(values, out);
            values.iter().all(|x| x.is_finite())
        })
    }

    /// Rounds a block to nearest by the rule of this format.
    pub(super) fn quantize_block(&self, values: &[f32], out: &mut [f32]) {
        let unrounded = largest(values) / -8.0;
        let step = scale(unrounded);
        if step == 0.0 {
            out.fill(0.0);
            return;
        }
        let inverse = 1.0 / unrounded;
        for (quantized, &x) in out.iter_mut().zip(values) {
            let code = libm::truncf(x * inverse + 8.5).min(15.0);
            *quantized = (code - 8.0) * step;
        }
    }
}

impl fmt::Display for Q4_0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "q4-0, block_size {BLOCK}")
    }
}

/// Returns the value of largest magnitude; of equal ones the first; 0 for an empty block.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(
        0.0_f32,
        |largest, &x| {
            if largest.abs() < x.abs() { x } else { largest }
        },
    )
}

/// Rounds a scale to f16 and keeps it finite.
fn scale(wanted: f32) -> f32 {
    let rounded = FloatDtype::F16.round(wanted);
    rounded.clamp(-LARGEST_SCALE, LARGEST_SCALE)
}

const fn levels(step: f32) -> Levels {
    Levels {
        step,
        lowest: -8.0,
        highest: 7.0,
    }
}
