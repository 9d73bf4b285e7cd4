//! MXINT: blocks of small integers that share one power of two.
//!
//! # Definition
//! A row is cut into blocks of `block_size` along in_features, the last one padded with zeros. With
//! w = element_bits, a block of magnitudes a (f32 subnormal numbers count as 0) has the shared
//! exponent e = floor(log2 max a), -126 when all are 0, and
//!
//!   M = min(round_half_even(a 2^(w - 2 - e)), 2^(w-1) - 1),  value = sign(x) M 2^(e - w + 2).
//!
//! So an element is one sign bit and w - 1 bits of magnitude, symmetric: w = 2 has the levels 0 and
//! +-1 (times 2^e), w = 8 those of OCP MXINT8 without -2. Quantizing again changes nothing: the
//! largest element keeps M >= 2^(w-2), hence e.
//!
//! # Exactness
//! e is read from the exponent field, never from a logarithm. The scaling by 2^(w-2-e), an exponent
//! from -127 to 132, is made as two multiplications by normal powers of two: neither can overflow,
//! and what they lose to underflow lies far below one half and rounds to 0 anyway. Rounding adds
//! and takes away 2^23, where the spacing of f32 is 1: half to even by IEEE 754 itself, and a +
//! 2^23 - 2^23 vectorises where a call does not. The scaling back is exact, because M has at most 7
//! bits and 2^(e-w+2) is at least 2^-132. Every step but the one rounding is exact, so ties (18 %
//! of the elements of a bf16 checkpoint at w = 8) are decided as the definition says.
//!
//! The reference forms M 2^e before it divides by 2^(w-2), which overflows for e >= 130 - w; here
//! such values stay finite. Infinite and NaN weights, which the reference turns into NaN blocks and
//! zeros, are refused by index.
//!
//! Cost: about 10 flops an element in two passes over a block. Error: half a step, 2^(e-w+1), for
//! what is not clamped. Source: `mxint` of the QERA code (`quantize/quantizers/mxint.py`); OCP
//! Microscaling Formats v1.0, 5.2 (E8M0) and 5.3.4 (INT8), 6.3 (conversion).

mod packed;

use core::fmt;

use super::blocks::quantize_blocks;
use super::error::GridError;
use super::levels::{Candidates, Levels};

const MAGNITUDE_BITS: u32 = 0x7fff_ffff;
const SIGN_BIT: u32 = 0x8000_0000;
/// Bits of +infinity, the smallest pattern that is not finite.
const INFINITE: u32 = 0x7f80_0000;
/// 2^23: from here to 2^24 neighbouring f32 numbers are 1 apart.
const SPACING_ONE: f32 = 8_388_608.0;

/// The MXINT format of some width and block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mxint {
    element_bits: u32,
    block_size: usize,
}

/// The scale of a block: factors that turn values into integers and back, each in two exact steps.
#[derive(Clone, Copy)]
struct Scale {
    to_integer: [f32; 2],
    from_integer: [f32; 2],
    largest_integer: f32,
}

impl Mxint {
    /// Checks and names a format.
    ///
    /// # Errors
    /// [`GridError::ElementBits`] outside 2 to 8, [`GridError::BlockSize`] for 0.
    ///
    /// ```
    /// use qera_core::quantize::{Mxint, GridError};
    /// assert_eq!(Mxint::new(4, 32)?.element_bits(), 4);
    /// assert_eq!(Mxint::new(9, 32), Err(GridError::ElementBits { element_bits: 9 }));
    /// # Ok::<(), GridError>(())
    /// ```
    pub const fn new(element_bits: u32, block_size: usize) -> Result<Self, GridError> {
        if element_bits < 2 || element_bits > 8 {
            return Err(GridError::ElementBits { element_bits });
        }
        if block_size == 0 {
            return Err(GridError::BlockSize);
        }
        Ok(Self {
            element_bits,
            block_size,
        })
    }

    /// Returns the bits of an element, its sign included.
    #[must_use]
    pub const fn element_bits(&self) -> u32 {
        self.element_bits
    }

    /// Returns how many elements share an exponent.
    #[must_use]
    pub const fn block_size(&self) -> usize {
        self.block_size
    }

    /// Writes the quantized weight as numbers: W~.
    ///
    /// # Shapes
    /// `weight` is `[out_features, in_features]`, row-major; `out` is as long. Blocks never cross a
    /// row.
    ///
    /// # Errors
    /// [`GridError::Length`], [`GridError::OutputLength`]; [`GridError::NonFinite`] for the
    /// first infinite or NaN weight, `out` holding unspecified numbers then.
    ///
    /// # Numerics
    /// Bit-exact by the definition (module documentation). A negative number that rounds to 0
    /// becomes -0, as in the reference.
    ///
    /// ```
    /// use qera_core::quantize::Mxint;
    /// let mut out = [0.0; 4];
    /// Mxint::new(4, 4)?.quantize_dequantize(&[0.1, -0.25, 0.3, 0.9], 4, &mut out)?;
    /// assert_eq!(out, [0.125, -0.25, 0.25, 0.875]);
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    pub fn quantize_dequantize(
        &self,
        weight: &[f32],
        in_features: usize,
        out: &mut [f32],
    ) -> Result<(), GridError> {
        quantize_blocks(weight, in_features, self.block_size, out, |values, out| {
            self.quantize_block(values, out)
        })
    }

    /// Quantizes one block; says `false`, having written nothing, when a value is not finite.
    #[inline(always)]
    pub(super) fn quantize_block(&self, values: &[f32], out: &mut [f32]) -> bool {
        let Some(exponent_field) = shared_exponent_field(values) else {
            return false;
        };
        let scale = self.scale(exponent_field);
        for (quantized, &x) in out.iter_mut().zip(values) {
            let [first, second] = scale.from_integer;
            let magnitude = scale.integer(x) * first * second;
            let sign = if x < 0.0 { SIGN_BIT } else { 0 };
            *quantized = f32::from_bits(magnitude.to_bits() | sign);
        }
        true
    }

    /// Says whether quantizing a block changes nothing; subnormal numbers count as 0.
    pub(super) fn keeps_block(&self, values: &[f32]) -> bool {
        let Some(exponent_field) = shared_exponent_field(values) else {
            return false;
        };
        let scale = self.scale(exponent_field);
        let [first, second] = scale.from_integer;
        values.iter().all(|x| {
            let magnitude = scale.integer(*x) * first * second;
            x.abs() < f32::MIN_POSITIVE || magnitude.to_bits() == x.abs().to_bits()
        })
    }

    /// Returns the levels that may be chosen for a block of these values: those of its shared
    /// exponent, and those of the exponent below, which are finer but cut off the largest
    /// magnitudes.
    ///
    /// The exponent is at least -94, so that a step and its reciprocal are normal numbers. That
    /// counts for a block of zeros, too: larger values may be rounded to its levels later.
    #[must_use]
    pub fn candidates(&self, values: &[f32]) -> Candidates {
        // What is not finite has no levels; the largest exponent stands for it.
        let field = shared_exponent_field(values).unwrap_or(254);
        let field = field.max(127 - 94);
        let [own, below] = [self.levels(field), self.levels(field - 1)];
        Candidates::new([own, below, own, own], 2)
    }

    /// Returns the levels that belong to a biased exponent, 0 to 254.
    fn levels(&self, exponent_field: u8) -> Levels {
        let highest = f32::from(self.largest_code());
        let [first, second] = self.scale(exponent_field).from_integer;
        Levels {
            step: first * second, // Exact, subnormal numbers included.
            lowest: -highest,
            highest,
        }
    }

    /// Returns the scale of a block by its biased exponent, 0 to 254.
    #[inline(always)]
    fn scale(&self, exponent_field: u8) -> Scale {
        // 2^(w-2-e) and its inverse; |w-2-e| <= 133, so both halves are normal powers of two.
        let shift = self.element_bits.cast_signed() - 2 - (i32::from(exponent_field) - 127);
        let half = shift / 2;
        Scale {
            to_integer: [power_of_two(half), power_of_two(shift - half)],
            from_integer: [power_of_two(-half), power_of_two(half - shift)],
            largest_integer: f32::from(self.largest_code()),
        }
    }

    /// Returns 2^(w-1) - 1, the largest magnitude of a code.
    #[inline(always)]
    const fn largest_code(&self) -> i8 {
        i8::MAX >> (8 - self.element_bits)
    }
}

impl fmt::Display for Mxint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "mxint{}, block_size {}",
            self.element_bits, self.block_size
        )
    }
}

impl Scale {
    /// Returns M, the integer of a magnitude.
    #[inline(always)]
    fn integer(&self, x: f32) -> f32 {
        let magnitude = if x.abs() < f32::MIN_POSITIVE {
            0.0
        } else {
            x.abs()
        };
        let [first, second] = self.to_integer;
        let rounded = magnitude * first * second + SPACING_ONE - SPACING_ONE;
        if rounded > self.largest_integer {
            self.largest_integer
        } else {
            rounded
        }
    }

    /// Returns the signed integer.
    #[expect(clippy::cast_possible_truncation, reason = "an integer of at most 127")]
    fn code(&self, x: f32) -> i8 {
        let integer = self.integer(x) as i8;
        if x < 0.0 { -integer } else { integer }
    }
}

/// Returns e + 127, at least 1; `None` when a value is not finite. The largest magnitude has the
/// largest bit pattern.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the exponent field of a finite number is at most 254"
)]
fn shared_exponent_field(values: &[f32]) -> Option<u8> {
    // Signed maximum of patterns without their sign bit: every vector unit has it or a comparison
    // for it.
    let largest = values.iter().fold(0_i32, |largest, x| {
        largest.max((x.to_bits() & MAGNITUDE_BITS).cast_signed())
    });
    let largest = largest.cast_unsigned();
    (largest < INFINITE).then_some((largest >> 23).max(1) as u8)
}

/// Returns 2^exponent for -126 <= exponent <= 127.
#[inline(always)]
const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits((exponent + 127).cast_unsigned() << 23)
}
