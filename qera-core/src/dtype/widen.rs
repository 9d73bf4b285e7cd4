//! Widens f32, f16 and bf16 numbers in their stored form to f32, exactly ([the module](super) says
//! how).

use super::float_dtype::FloatDtype;

/// 2^112, which takes the exponent's bias from f16's 15 to f32's 127.
const F16_TO_F32: f32 = f32::from_bits((127 + 112) << 23);

/// Widens as many numbers as `out` has; the caller has checked the lengths. Bytes that are missing
/// leave the rest of `out` as it was. No number is checked, which is the work of
/// [`decode_rows`](super::decode_rows).
///
/// ```
/// use qera_core::dtype::{FloatDtype, widen};
/// let mut out = [0.0; 2];
/// widen(&[0x80, 0x3f, 0x00, 0xc0], FloatDtype::Bf16, &mut out);
/// assert_eq!(out, [1.0, -2.0]);
/// ```
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

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

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
}
