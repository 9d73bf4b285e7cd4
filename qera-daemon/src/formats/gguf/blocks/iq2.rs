//! The IQ2 types, in blocks of 256: eight numbers at a time are a point of a grid and their signs.
//!
//! A number is d (1/2 + s) / 4 times its coordinate, in this order, with s of 4 bits.

use super::iq2_grids;
use super::parts::{even_signs, half_at, nibble_at, points_of_8, signed, u16_at, u32_at};

/// What a coordinate's two bits stand for.
const COORDINATES: [i8; 4] = [8, 25, 43, 0];

static IQ2_XXS: [[i8; 8]; 256] = points_of_8(&iq2_grids::IQ2_XXS, COORDINATES);
static IQ2_XS: [[i8; 8]; 512] = points_of_8(&iq2_grids::IQ2_XS, COORDINATES);
static IQ2_S: [[i8; 8]; 1024] = points_of_8(&iq2_grids::IQ2_S, COORDINATES);

fn eight(values: &mut [f32; 8], scale: f32, point: &[i8; 8], signs: u8) {
    for (index, (value, coordinate)) in values.iter_mut().zip(point).enumerate() {
        *value = signed(scale * f32::from(*coordinate), signs, index);
    }
}

/// The factor that the coordinates are multiplied by.
fn scale(d: f32, s: u8) -> f32 {
    d * (0.5 + f32::from(s)) * 0.25
}

/// d, then for each 32 numbers four bytes that name points and a u32: four times 7 bits of signs,
/// and s.
pub(super) fn iq2_xxs(block: &[u8; 66], values: &mut [f32; 256]) {
    let d = half_at(block, 0);
    let parts = values.as_chunks_mut::<32>().0.iter_mut();
    for (out, bytes) in parts.zip(block[2..].as_chunks::<8>().0) {
        let packed = u32_at(bytes, 4);
        let scale = scale(d, bytes[7] >> 4);
        for (index, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let point = &IQ2_XXS[usize::from(bytes[index])];
            eight(out, scale, point, even_signs(packed >> (7 * index)));
        }
    }
}

/// d, 32 u16 of 9 bits that name a point and 7 of signs, 8 bytes with s of each 16 numbers.
pub(super) fn iq2_xs(block: &[u8; 74], values: &mut [f32; 256]) {
    let (d, scales) = (half_at(block, 0), &block[66..]);
    for (index, out) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let packed = u16_at(block, 2 + 2 * index);
        let scale = scale(d, nibble_at(scales, index / 2));
        let point = &IQ2_XS[usize::from(packed & 511)];
        eight(out, scale, point, even_signs(u32::from(packed >> 9)));
    }
}

/// d, 32 low bytes of names, 32 bytes of signs, 8 with two high bits of names each, 8 with s of
/// each 16 numbers.
pub(super) fn iq2_s(block: &[u8; 82], values: &mut [f32; 256]) {
    let (d, names) = (half_at(block, 0), &block[2..34]);
    let (signs, high, scales) = (&block[34..66], &block[66..74], &block[74..]);
    for (index, out) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let high = usize::from(high[index / 4] >> (2 * (index % 4)) & 3) << 8;
        let point = &IQ2_S[usize::from(names[index]) | high];
        let scale = scale(d, nibble_at(scales, index / 2));
        eight(out, scale, point, signs[index]);
    }
}
