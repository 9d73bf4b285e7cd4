//! Bytes to checked rows, and to checked weights.

use super::error::DecodeError;
use super::float_dtype::FloatDtype;
use super::magnitude::{MAGNITUDE_BITS, MAGNITUDE_MAX, first_above, is_within};
use super::widen::widen;

/// [`MAGNITUDE_MAX`] as bf16.
const BF16_MAGNITUDE_MAX: u16 = (127 + 57) << 7;
/// The largest finite f16, far below [`MAGNITUDE_MAX`].
const F16_LARGEST: u16 = 0x7bff;

/// Widens little-endian activations to f32, dropping masked rows.
///
/// # Shapes
/// `bytes` holds rows x `in_features` numbers, row-major; `mask`, one byte a row; `out`, at least
/// the rows kept x `in_features`. Rows whose mask byte is 0 are dropped and never inspected
/// (padding may hold anything); the others are written one after the other from the start of `out`.
/// Returns how many were kept; the rest of `out` is left as it was.
///
/// # Errors
/// [`DecodeError`], its rows and columns being those of the input. `out` then holds unspecified
/// numbers; nothing has been accumulated: refuse the batch.
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
    let RowCount { kept, .. } = count_rows(bytes, dtype, in_features, mask)?;
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
            && let Some(column) = first_above(output, MAGNITUDE_MAX)
        {
            return Err(refusal(row, column, output[column]));
        }
    }
    Ok(kept)
}

/// Checks little-endian activations as [`decode_rows`] does, but leaves them in their stored form:
/// masked rows are dropped by moving the others to the front of `bytes`. Returns how many rows were
/// kept.
///
/// For hosts that multiply rows in the form in which they came: [`widen`] takes any part of them
/// from here on.
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
    let RowCount { rows, kept } = count_rows(bytes, dtype, in_features, mask)?;
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
    // No early exit, so that the loops vectorise; signed comparisons of 16 bits, which every vector
    // unit has.
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
        if !is_within(&value, MAGNITUDE_MAX) {
            return Err(refusal(row, column, value[0]));
        }
    }
    Ok(())
}

/// How many rows there are, and how many of them the mask keeps.
struct RowCount {
    rows: usize,
    kept: usize,
}

fn count_rows(
    bytes: &[u8],
    dtype: FloatDtype,
    in_features: usize,
    mask: Option<&[u8]>,
) -> Result<RowCount, DecodeError> {
    let row_bytes = in_features.saturating_mul(dtype.size_bytes());
    if row_bytes == 0 || !bytes.len().is_multiple_of(row_bytes) {
        return Err(DecodeError::Length {
            bytes: bytes.len(),
            row_bytes,
        });
    }
    let rows = bytes.len() / row_bytes;
    let kept = match mask {
        None => rows,
        Some(mask) if mask.len() != rows => {
            return Err(DecodeError::MaskLength {
                mask: mask.len(),
                rows,
            });
        }
        Some(mask) => mask.iter().filter(|&&byte| byte != 0).count(),
    };
    Ok(RowCount { rows, kept })
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
/// [`DecodeError::Length`] and [`DecodeError::OutputLength`] for the shapes;
/// [`DecodeError::NonFinite`] for the first value that is not finite, as column `index` of row 0.
/// `out` then holds unspecified numbers.
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
            && let Some(index) = first_above(output, f32::MAX)
        {
            return Err(DecodeError::NonFinite {
                row: 0,
                column: piece * PIECE + index,
                value: output[index],
            });
        }
    }
    Ok(())
}
