//! The IQ1 types, in blocks of 256: eight numbers at a time are a point of {-1, 0, 1}^8, moved by
//! an eighth.
//!
//! A number is d (2 s + 1) times its moved coordinate, with s of 3 bits.

use super::iq1_grid;
use super::parts::{half_at, nibble_at, points_of_8, u16_at};

static IQ1: [[i8; 8]; 2048] = points_of_8(&iq1_grid::IQ1, [-1, 0, 1, 0]);

/// How far points are moved, up, or down where a bit says so.
const SHIFT: f32 = 0.125;

fn eight(values: &mut [f32; 8], scale: f32, name: usize, down: bool) {
    let shift = if down { -SHIFT } else { SHIFT };
    for (value, coordinate) in values.iter_mut().zip(IQ1[name]) {
        *value = scale * (f32::from(coordinate) + shift);
    }
}

fn scale(d: f32, s: u16) -> f32 {
    d * f32::from(2 * (s & 7) + 1)
}

/// d, 32 low bytes of names, then for each 32 numbers a u16: four times 3 high bits of names, s,
/// and whether all four points are moved down.
pub(super) fn iq1_s(block: &[u8; 50], values: &mut [f32; 256]) {
    let (d, names) = (half_at(block, 0), &block[2..34]);
    for (index, out) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let packed = u16_at(block, 34 + index / 4 * 2);
        let high = usize::from(packed >> (3 * (index % 4)) & 7) << 8;
        let name = usize::from(names[index]) | high;
        eight(out, scale(d, packed >> 12), name, packed >> 15 == 1);
    }
}

/// 32 low bytes of names, 16 with a nibble for each point (three high bits of its name, and whether
/// it is moved down), four u16: four times s of 16 numbers, and 4 bits of d, the lowest first.
pub(super) fn iq1_m(block: &[u8; 56], values: &mut [f32; 256]) {
    let (names, high, scales) = (&block[..32], &block[32..48], &block[48..]);
    let quarter = |index: usize| u16_at(scales, 2 * index) >> 12;
    let bits = quarter(0) | quarter(1) << 4 | quarter(2) << 8 | quarter(3) << 12;
    let d = half_at(&bits.to_le_bytes(), 0);
    for (index, out) in values.as_chunks_mut().0.iter_mut().enumerate() {
        let high = nibble_at(high, index);
        let s = u16_at(scales, index / 8 * 2) >> (3 * (index / 2 % 4));
        let name = usize::from(names[index]) | usize::from(high & 7) << 8;
        eight(out, scale(d, s), name, high >> 3 == 1);
    }
}
