//! Little-endian f32, f16 and bf16 numbers in, checked f32 out.
//!
//! # Widening
//! bf16 is the upper half of an f32: a shift. f16 has 5 exponent bits with bias 15 where f32 has 8 with bias 127, so its
//! magnitude shifted left by 13 bits is the f32 that is 2^(127 - 15) too small, subnormal f16 numbers included (they
//! become subnormal f32 numbers); one multiplication by 2^112 puts that right, exactly. Infinity and NaN, exponent field 31,
//! get exponent field 255 by a selection. Neither widening has a branch, so the loops vectorise.
//!
//! # The largest magnitude
//! Accumulation multiplies in f32 and may sum the products of up to 4096 = 2^12 rows in f32 before it folds them in f64.
//! |x| <= 2^57 gives products of at most 2^114 and sums of at most 2^126, below the largest f32, which is almost 2^128: the
//! spare factor of 4 covers the rounding of the sums, whatever their order. An activation near 1e17 is an overflow in the
//! making, not data; it is refused with its place, as infinity and NaN are.
//!
//! Both checks are one integer comparison: the bits of |x| grow with |x|, and infinity and NaN lie above every finite
//! number.
//!
//! Cost: one pass, no allocation. Source: IEEE 754-2019, 3.4 (interchange formats) and 3.3 (their values).

use core::fmt;
use half::{bf16, f16};

/// The largest |x| of an activation, 2^57: the f32 sum of 4096 products of two such numbers is at most 2^126, so finite.
pub const MAGNITUDE_MAX: f32 = 144_115_188_075_855_872.0;

const MAGNITUDE_BITS: u32 = 0x7fff_ffff;
/// [`MAGNITUDE_MAX`] as bf16.
const BF16_MAGNITUDE_MAX: u16 = (127 + 57) << 7;
/// The largest finite f16, far below [`MAGNITUDE_MAX`].
const F16_LARGEST: u16 = 0x7bff;
/// 2^112, which takes the exponent's bias from f16's 15 to f32's 127.
const F16_TO_F32: f32 = f32::from_bits((127 + 112) << 23);

/// How a floating-point number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatDtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl FloatDtype {
    /// Says how many bytes a number takes.
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Names the dtype as the command line and the reports do.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Rounds to what a reader of this dtype will see: to nearest, ties to even, infinite when out of range.
    ///
    /// ```
    /// use qera_core::dtype::FloatDtype;
    /// assert_eq!(FloatDtype::F16.round(1.0 / 3.0), 0.333_251_95);
    /// assert_eq!(FloatDtype::Bf16.round(1.0 / 3.0), 0.333_984_38);
    /// assert_eq!(FloatDtype::F16.round(65_520.0), f32::INFINITY);
    /// ```
    #[must_use]
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }
}

impl fmt::Display for FloatDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Widens little-endian activations to f32, dropping masked rows.
///
/// # Shapes
/// `bytes` holds rows x `in_features` numbers, row-major; `mask`, one byte a row; `out`, at least the rows kept x
/// `in_features`. Rows whose mask byte is 0 are dropped and never inspected (padding may hold anything); the others are
/// written one after the other from the start of `out`. Returns how many were kept; the rest of `out` is left as it was.
///
/// # Errors
/// [`DecodeError`], its rows and columns being those of the input. `out` then holds unspecified numbers; nothing has been
/// accumulated: refuse the batch.
///
/// # Numerics
/// Exact: every f16 and bf16 number is an f32 number.
///
/// ```
/// use qera_core::dtype::{DecodeError, FloatDtype, decode_rows};
/// let bytes = [0x80, 0x3f, 0x00, 0x40, 0xc0, 0x7f, 0x00, 0xc0]; // bf16: [1, 2] and [NaN, -2]
/// let mut out = [0.0; 4];
/// assert_eq!(decode_rows(&bytes, FloatDtype::Bf16, 2, Some(&[1, 0]), &mut out)?, 1);
/// assert_eq!(out[..2], [1.0, 2.0]);
/// let refused = decode_rows(&bytes, FloatDtype::Bf16, 2, None, &mut out).unwrap_err();
/// assert!(matches!(refused, DecodeError::NonFinite { row: 1, column: 0, .. }));
/// # Ok::<(), DecodeError>(())
/// ```
pub fn decode_rows(
    bytes: &[u8],
    dtype: FloatDtype,
    in_features: usize,
    mask: Option<&[u8]>,
    out: &mut [f32],
) -> Result<usize, DecodeError> {
    let (_, kept) = count_rows(bytes, dtype, in_features, mask)?;
    let row_bytes = in_features * dtype.size_bytes();
    let needed = kept * in_features;
    if out.len() < needed {
        return Err(DecodeError::OutputLength {
            needed,
            lent: out.len(),
        });
    }
    let inputs = bytes.chunks_exact(row_bytes).enumerate();
    let kept_inputs = inputs.filter(|(row, _)| mask.is_none_or(|mask| mask[*row] != 0));
    for ((row, input), output) in kept_inputs.zip(out.chunks_exact_mut(in_features)) {
        widen(input, dtype, output);
        if !is_within(output, MAGNITUDE_MAX)
            && let Some((column, value)) = first_above(output, MAGNITUDE_MAX)
        {
            return Err(refusal(row, column, value));
        }
    }
    Ok(kept)
}

/// Checks little-endian activations as [`decode_rows`] does, and keeps them as they are: masked rows are dropped by moving the
/// others to the front of `bytes`. Returns how many rows were kept.
///
/// For hosts that multiply rows in the form in which they came: [`widen`] takes any part of them from here on.
///
/// # Errors
/// [`DecodeError`] as [`decode_rows`]; `bytes` then holds unspecified rows.
///
/// ```
/// use qera_core::dtype::{DecodeError, FloatDtype, keep_rows, widen};
/// let mut bytes = [0xc0, 0x7f, 0x00, 0x40, 0x80, 0x3f, 0x00, 0xc0]; // bf16: [NaN, 2] and [1, -2]
/// assert_eq!(keep_rows(&mut bytes, FloatDtype::Bf16, 2, Some(&[0, 1]))?, 1);
/// let mut row = [0.0; 2];
/// widen(&bytes[..4], FloatDtype::Bf16, &mut row);
/// assert_eq!(row, [1.0, -2.0]);
/// # Ok::<(), DecodeError>(())
/// ```
pub fn keep_rows(
    bytes: &mut [u8],
    dtype: FloatDtype,
    in_features: usize,
    mask: Option<&[u8]>,
) -> Result<usize, DecodeError> {
    let (rows, kept) = count_rows(bytes, dtype, in_features, mask)?;
    let row_bytes = in_features * dtype.size_bytes();
    let mut to = 0;
    for row in 0..rows {
        if mask.is_some_and(|mask| mask[row] == 0) {
            continue;
        }
        let from = row * row_bytes;
        check_row(&bytes[from..from + row_bytes], dtype, row)?;
        if to < from {
            bytes.copy_within(from..from + row_bytes, to);
        }
        to += row_bytes;
    }
    Ok(kept)
}

/// Refuses a row with a number that is not finite or above [`MAGNITUDE_MAX`].
fn check_row(bytes: &[u8], dtype: FloatDtype, row: usize) -> Result<(), DecodeError> {
    // No early exit, so that the loops vectorise; signed comparisons of 16 bits, which every vector unit has.
    let above = |limit: u16| {
        let limit = limit.cast_signed();
        let mut above = 0_i16;
        for &le in bytes.as_chunks::<2>().0 {
            let magnitude = (u16::from_le_bytes(le) & 0x7fff).cast_signed();
            above |= i16::from(magnitude > limit);
        }
        above != 0
    };
    let refused = match dtype {
        FloatDtype::F32 => {
            let limit = MAGNITUDE_MAX.to_bits().cast_signed();
            let mut above = 0_i32;
            for &le in bytes.as_chunks::<4>().0 {
                let magnitude = u32::from_le_bytes(le) & MAGNITUDE_BITS;
                above |= i32::from(magnitude.cast_signed() > limit);
            }
            above != 0
        }
        FloatDtype::F16 => above(F16_LARGEST),
        FloatDtype::Bf16 => above(BF16_MAGNITUDE_MAX),
    };
    if !refused {
        return Ok(());
    }
    let size = dtype.size_bytes();
    for (column, number) in bytes.chunks_exact(size).enumerate() {
        let mut value = [0.0];
        widen(number, dtype, &mut value);
        if let Some((_, value)) = first_above(&value, MAGNITUDE_MAX) {
            return Err(refusal(row, column, value));
        }
    }
    Ok(())
}

/// How many rows there are, and how many of them the mask keeps.
fn count_rows(
    bytes: &[u8],
    dtype: FloatDtype,
    in_features: usize,
    mask: Option<&[u8]>,
) -> Result<(usize, usize), DecodeError> {
    let row_bytes = in_features.saturating_mul(dtype.size_bytes());
    if row_bytes == 0 || !bytes.len().is_multiple_of(row_bytes) {
        return Err(DecodeError::Length {
            bytes: bytes.len(),
            row_bytes,
        });
    }
    let rows = bytes.len() / row_bytes;
    match mask {
        None => Ok((rows, rows)),
        Some(mask) if mask.len() != rows => Err(DecodeError::MaskLength {
            mask: mask.len(),
            rows,
        }),
        Some(mask) => Ok((rows, mask.iter().filter(|&&byte| byte != 0).count())),
    }
}

const fn refusal(row: usize, column: usize, value: f32) -> DecodeError {
    if value.is_finite() {
        DecodeError::ProductOverflow { row, column, value }
    } else {
        DecodeError::NonFinite { row, column, value }
    }
}

/// Widens little-endian weights to f32; they may have any finite value.
///
/// # Shapes
/// `bytes` holds exactly as many numbers as `out`.
///
/// # Errors
/// [`DecodeError::Length`] and [`DecodeError::OutputLength`] for the shapes; [`DecodeError::NonFinite`] for the first value
/// that is not finite, as column `index` of row 0. `out` then holds unspecified numbers.
///
/// ```
/// use qera_core::dtype::{DecodeError, FloatDtype, decode_weights};
/// let mut out = [0.0; 2];
/// decode_weights(&[0x00, 0x38, 0x01, 0x80], FloatDtype::F16, &mut out)?; // 0.5 and the smallest negative f16
/// assert_eq!(out, [0.5, -5.960_464_5e-8]);
/// # Ok::<(), DecodeError>(())
/// ```
pub fn decode_weights(bytes: &[u8], dtype: FloatDtype, out: &mut [f32]) -> Result<(), DecodeError> {
    let size = dtype.size_bytes();
    if !bytes.len().is_multiple_of(size) {
        return Err(DecodeError::Length {
            bytes: bytes.len(),
            row_bytes: size,
        });
    }
    let needed = bytes.len() / size;
    if out.len() != needed {
        return Err(DecodeError::OutputLength {
            needed,
            lent: out.len(),
        });
    }
    // In pieces that stay in the first-level cache between widening and checking.
    const PIECE: usize = 1024;
    for (piece, (input, output)) in bytes
        .chunks(PIECE * size)
        .zip(out.chunks_mut(PIECE))
        .enumerate()
    {
        widen(input, dtype, output);
        if !is_within(output, f32::MAX)
            && let Some((index, value)) = first_above(output, f32::MAX)
        {
            return Err(DecodeError::NonFinite {
                row: 0,
                column: piece * PIECE + index,
                value,
            });
        }
    }
    Ok(())
}

/// Widens as many numbers as `out` has; the caller has checked the lengths.
#[inline]
pub fn widen(bytes: &[u8], dtype: FloatDtype, out: &mut [f32]) {
    match dtype {
        FloatDtype::F32 => {
            for (value, &le) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(le);
            }
        }
        FloatDtype::F16 => {
            for (value, &le) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = widen_f16(u16::from_le_bytes(le));
            }
        }
        FloatDtype::Bf16 => {
            for (value, &le) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(le)) << 16);
            }
        }
    }
}

/// Widens one f16 without a branch (module documentation).
#[inline]
fn widen_f16(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let shifted = (bits & 0x7fff) << 13;
    let finite = (f32::from_bits(shifted) * F16_TO_F32).to_bits();
    let magnitude = if bits & 0x7c00 == 0x7c00 {
        shifted | 0x7f80_0000
    } else {
        finite
    };
    f32::from_bits(magnitude | (bits & 0x8000) << 16)
}

/// Says whether every |value| is at most `limit` (and so finite): a loop without early exit, so that it vectorises.
pub(crate) fn is_within(values: &[f32], limit: f32) -> bool {
    // Signed comparisons, which every vector unit has; with the sign bit cleared they order the same.
    let limit = limit.to_bits().cast_signed();
    let mut above = 0_i32;
    for value in values {
        above |= i32::from((value.to_bits() & MAGNITUDE_BITS).cast_signed() > limit);
    }
    above == 0
}

/// Finds the first value that is not finite or above `limit` in magnitude.
pub(crate) fn first_above(values: &[f32], limit: f32) -> Option<(usize, f32)> {
    let index = values
        .iter()
        .position(|value| value.to_bits() & MAGNITUDE_BITS > limit.to_bits())?;
    Some((index, values[index]))
}

/// Why bytes are not rows, or not weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DecodeError {
    /// The bytes do not form whole rows, or rows have no bytes.
    Length {
        /// How many bytes were given.
        bytes: usize,
        /// How many a row has.
        row_bytes: usize,
    },
    /// A value is infinite or NaN.
    NonFinite {
        /// Row of the input; 0 for weights.
        row: usize,
        /// Column of the input; the index for weights.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A value is finite but above [`MAGNITUDE_MAX`]: its products would overflow f32.
    ProductOverflow {
        /// Row of the input.
        row: usize,
        /// Column of the input.
        column: usize,
        /// The value.
        value: f32,
    },
    /// The mask does not have one byte for each row.
    MaskLength {
        /// How many bytes the mask has.
        mask: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// The output does not have room for what is kept (weights: is not exactly as long).
    OutputLength {
        /// How many numbers are needed.
        needed: usize,
        /// How many were lent.
        lent: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { bytes, row_bytes } => {
                write!(f, "{bytes} bytes are not whole rows of {row_bytes} bytes")
            }
            Self::NonFinite { row, column, value } => {
                write!(f, "{value} at row {row}, column {column}")
            }
            Self::ProductOverflow { row, column, value } => write!(
                f,
                "{value:e} at row {row}, column {column} is above {MAGNITUDE_MAX:e}: its f32 products would overflow"
            ),
            Self::MaskLength { mask, rows } => write!(f, "a mask of {mask} bytes for {rows} rows"),
            Self::OutputLength { needed, lent } => {
                write!(f, "{needed} numbers do not fit the {lent} lent")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// All 65,536 f16 and bf16 patterns against the `half` crate.
    #[test]
    fn widening_is_exact_for_every_pattern() {
        for bits in 0..=u16::MAX {
            let (ours, expected) = (widen_f16(bits), f16::from_bits(bits).to_f32());
            assert!(
                ours.to_bits() == expected.to_bits() || (ours.is_nan() && expected.is_nan()),
                "f16 {bits:#06x}"
            );
            let mut ours = [0.0];
            widen(&bits.to_le_bytes(), FloatDtype::Bf16, &mut ours);
            let expected = bf16::from_bits(bits).to_f32();
            assert!(
                ours[0].to_bits() == expected.to_bits() || expected.is_nan() && ours[0].is_nan(),
                "bf16 {bits:#06x}"
            );
        }
    }

    #[test]
    fn the_limit_itself_is_allowed_and_its_sums_stay_finite() {
        assert_eq!(MAGNITUDE_MAX.to_bits(), (127 + 57) << 23);
        assert!(is_within(&[MAGNITUDE_MAX, -MAGNITUDE_MAX], MAGNITUDE_MAX));
        assert_eq!(
            first_above(&[0.0, -MAGNITUDE_MAX.next_up()], MAGNITUDE_MAX).map(|found| found.0),
            Some(1)
        );
        let sum = (0..4096).fold(0.0_f32, |sum, _| sum + MAGNITUDE_MAX * MAGNITUDE_MAX);
        assert!(sum.is_finite());
    }
}
