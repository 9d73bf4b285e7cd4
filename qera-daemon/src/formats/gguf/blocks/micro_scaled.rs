//! `MXFP4` and `NVFP4`: 4-bit floats with a scale that is a small float.

use super::parts::nibbles;

/// Twice the numbers of E2M1, by their bits; the scales below are halves for that.
const LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn level(q: u8) -> f32 {
    f32::from(LEVELS[usize::from(q & 15)])
}

/// An exponent (E8M0), 16 bytes of nibbles.
pub(super) fn mxfp4(block: &[u8; 17], values: &mut [f32; 32]) {
    let (exponent, qs) = (u32::from(block[0]), &block[1..]);
    // 2^(exponent - 128), which is subnormal for 0 and 1.
    let scale = f32::from_bits(match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        _ => (exponent - 1) << 23,
    });
    nibbles(qs, values, |q| scale * level(q));
}

/// Four scales (E4M3 without a sign), then 8 bytes of nibbles for each sub-block of 16.
///
/// What this gives is still to be multiplied by the tensor's own scale, where its file has one.
pub(super) fn nvfp4(block: &[u8; 36], values: &mut [f32; 64]) {
    let (scales, qs) = block.split_at(4);
    let parts = values.as_chunks_mut::<16>().0.iter_mut();
    for ((out, bytes), bits) in parts.zip(qs.as_chunks::<8>().0).zip(scales) {
        let scale = half_of_ue4m3(*bits);
        nibbles(bytes, out, |q| scale * level(q));
    }
}

/// Half of an E4M3 whose sign bit is not looked at; NaN without that bit reads as 0.
fn half_of_ue4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(bits >> 3 & 15), u32::from(bits & 7));
    match exponent {
        _ if bits == 0x7f => 0.0,
        // mantissa 2^-9 / 2
        0 => f32::from(bits & 7) * f32::from_bits((127 - 10) << 23),
        // (1 + mantissa / 8) 2^(exponent - 7) / 2
        _ => f32::from_bits((exponent + 127 - 8) << 23 | mantissa << 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes 0x77 are the level 12 in both halves.
    #[test]
    fn every_scale_of_mxfp4_is_a_power_of_two() {
        for exponent in 0..=u8::MAX {
            let mut block = [0x77; 17];
            block[0] = exponent;
            let mut values = [0.0; 32];
            mxfp4(&block, &mut values);
            let expected = 12.0 * 2_f64.powi(i32::from(exponent) - 128);
            let overflows = expected > f64::from(f32::MAX);
            let expected = if overflows { f64::INFINITY } else { expected };
            let bits = values.map(|value| f64::from(value).to_bits());
            assert_eq!(bits, [expected.to_bits(); 32], "{exponent}");
        }
    }

    #[test]
    fn every_scale_of_nvfp4_is_half_of_an_e4m3() {
        for bits in 0..=u8::MAX {
            let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f64::from(bits & 7));
            let expected = match (bits, exponent) {
                (0x7f, _) => 0.0,
                (_, 0) => mantissa / 8.0 * 2_f64.powi(-7),
                _ => (1.0 + mantissa / 8.0) * 2_f64.powi(exponent - 8),
            };
            let half = f64::from(half_of_ue4m3(bits));
            assert_eq!(half.to_bits(), expected.to_bits(), "{bits}: {half}");
        }
    }
}
