//! The IQ3 types, in blocks of 256: four numbers at a time are a point of a grid, and eight bits
//! are the signs of two points.

use super::iq3_grids;
use super::parts::{even_signs, half_at, nibble_at, signed, u32_at};

static IQ3_XXS: [[u8; 4]; 256] = points_of_4(&iq3_grids::IQ3_XXS, [4, 12, 20, 28, 36, 44, 52, 62]);
static IQ3_S: [[u8; 4]; 512] = points_of_4(&iq3_grids::IQ3_S, [1, 3, 5, 7, 9, 11, 13, 15]);

/// The points of a grid, from their coordinates' four bits.
const fn points_of_4<const N: usize>(packed: &[u16; N], coordinates: [u8; 8]) -> [[u8; 4]; N] {
    let mut points = [[0; 4]; N];
    let mut index = 0;
    while index < 4 * N {
        let bits = packed[index / 4] >> (4 * (index % 4)) & 7;
        points[index / 4][index % 4] = coordinates[bits as usize];
        index += 1;
    }
    points
}

fn four(values: &mut [f32], scale: f32, point: [u8; 4], signs: u8) {
    for (index, (value, coordinate)) in values.iter_mut().zip(point).enumerate() {
        *value = signed(scale * f32::from(coordinate), signs, index);
    }
}

/// d, 64 bytes that name points, then for each 32 numbers a u32: four times 7 bits of signs, and s
/// of 4. A number is d (1/2 + s) / 2 times its coordinate.
pub(super) fn iq3_xxs(block: &[u8; 98], values: &mut [f32; 256]) {
    let d = half_at(block, 0);
    let (names, packed) = block[2..].split_at(64);
    for (index, out) in values.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let packed = u32_at(packed, index / 4 * 4);
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.5;
        let signs = even_signs(packed >> (7 * (index % 4)));
        let (first, second) = out.split_at_mut(4);
        four(first, scale, IQ3_XXS[usize::from(names[2 * index])], signs);
        let point = IQ3_XXS[usize::from(names[2 * index + 1])];
        four(second, scale, point, signs >> 4);
    }
}

/// d, 64 low bytes of names, 8 bytes with their ninth bits, 32 of signs, 4 with s of each 32
/// numbers. A number is d (1 + 2 s) times its coordinate.
pub(super) fn iq3_s(block: &[u8; 110], values: &mut [f32; 256]) {
    let (d, names, ninth) = (half_at(block, 0), &block[2..66], &block[66..74]);
    let (signs, scales) = (&block[74..106], &block[106..]);
    for (index, out) in values.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let name =
            usize::from(names[index]) | usize::from(ninth[index / 8] >> (index % 8) & 1) << 8;
        let scale = d * f32::from(1 + 2 * nibble_at(scales, index / 8));
        four(out, scale, IQ3_S[name], signs[index / 2] >> (index % 2 * 4));
    }
}
