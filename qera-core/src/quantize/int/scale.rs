//! Scales and zero points of INT: their range, and how they are stored.
//!
//! A block stores its scale, little-endian, followed by one byte for its zero point when the format
//! has zero points.

use half::{bf16, f16};

use super::super::levels::Levels;
use super::Int;
use crate::dtype::{FloatDtype, widen};

/// The smallest scale of bf16 and f32, 2^-100: 1 / s and what it is multiplied by stay far inside
/// the range of f32.
const SMALLEST: f32 = f32::from_bits((127 - 100) << 23);
/// The smallest scale of f16, 2^-24, its least number.
const SMALLEST_F16: f32 = f32::from_bits((127 - 24) << 23);
const LARGEST_F16: f32 = 65_504.0;

impl Int {
    /// Rounds a scale to its type, within its range.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a scale that f32 cannot hold is cut off at the largest"
    )]
    pub(super) fn rounded_scale(&self, wanted: f64) -> f32 {
        // A power of two at least as large as any integer: the quotient is exact.
        let reach = if self.zero_points {
            2.0 * f32::from(self.half())
        } else {
            f32::from(self.half())
        };
        let largest = f32::MAX / reach;
        let rounded = self.scale_dtype.round(wanted as f32);
        match self.scale_dtype {
            FloatDtype::F16 => rounded.clamp(SMALLEST_F16, LARGEST_F16),
            FloatDtype::Bf16 => {
                rounded.clamp(SMALLEST, f32::from_bits(largest.to_bits() & 0xffff_0000))
            }
            FloatDtype::F32 => rounded.clamp(SMALLEST, largest),
        }
    }

    /// Returns the levels that a scale and a zero point give; a symmetric block has the zero point
    /// 2^(b-1).
    #[expect(clippy::cast_possible_truncation, reason = "an integer of at most 255")]
    pub(super) fn levels(&self, step: f32, zero_point: f64) -> Levels {
        let lowest = 0.0 - zero_point as f32;
        Levels {
            step,
            lowest,
            highest: lowest + f32::from(self.largest_code()),
        }
    }

    /// Says how many bytes a block's scale and zero point take.
    pub(in super::super) const fn scale_len(&self) -> usize {
        self.scale_dtype.size_bytes() + self.zero_points as usize
    }

    /// Writes the scale and the zero point of these levels, or returns `false` if no block of this
    /// format can have them.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is no byte becomes another number and is refused"
    )]
    pub(in super::super) fn write_scale(&self, levels: &Levels, bytes: &mut [u8]) -> bool {
        let (scale, zero_point) = bytes.split_at_mut(self.scale_dtype.size_bytes());
        match self.scale_dtype {
            FloatDtype::F16 => scale.copy_from_slice(&f16::from_f32(levels.step).to_le_bytes()),
            FloatDtype::Bf16 => scale.copy_from_slice(&bf16::from_f32(levels.step).to_le_bytes()),
            FloatDtype::F32 => scale.copy_from_slice(&levels.step.to_le_bytes()),
        }
        if let [zero_point] = zero_point {
            *zero_point = -levels.lowest as u8;
        }
        self.read_scale(bytes) == Some(*levels)
    }

    /// Returns the levels of a packed scale and zero point, or `None` for bytes that are never
    /// written.
    pub(in super::super) fn read_scale(&self, bytes: &[u8]) -> Option<Levels> {
        let (scale, zero_point) = bytes.split_at(self.scale_dtype.size_bytes());
        let mut step = [0.0];
        widen(scale, self.scale_dtype, &mut step);
        let zero_point = zero_point.first().copied().unwrap_or_else(|| self.half());
        let known = step[0].is_finite() && step[0] > 0.0 && zero_point <= self.largest_code();
        known.then(|| self.levels(step[0], f64::from(zero_point)))
    }
}
