//! The first types, in blocks of 32: `Q4_0` to `Q8_0`.
//!
//! A block is its scale d, for `_1` its least number m, and q for every number: d (q - centre), or
//! d q + m. `Q5` has the fifth bits apart, as a u32 whose bit j belongs to number j.

use super::parts::{half_at, nibbles, u32_at};

/// d, 16 bytes of nibbles.
pub(super) fn q4_0(block: &[u8; 18], values: &mut [f32; 32]) {
    let d = half_at(block, 0);
    nibbles(&block[2..], values, |q| d * (f32::from(q) - 8.0));
}

/// d, m, 16 bytes of nibbles.
pub(super) fn q4_1(block: &[u8; 20], values: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..], values, |q| d * f32::from(q) + m);
}

/// d, the fifth bits, 16 bytes of nibbles.
pub(super) fn q5_0(block: &[u8; 22], values: &mut [f32; 32]) {
    let d = half_at(block, 0);
    five_bits(&block[2..], values);
    for value in values {
        *value = d * (*value - 16.0);
    }
}

/// d, m, the fifth bits, 16 bytes of nibbles.
pub(super) fn q5_1(block: &[u8; 24], values: &mut [f32; 32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    five_bits(&block[4..], values);
    for value in values {
        *value = d * *value + m;
    }
}

/// The numbers 0 to 31 of four bytes of fifth bits and 16 of nibbles.
fn five_bits(bytes: &[u8], values: &mut [f32; 32]) {
    let fifth = u32_at(bytes, 0);
    nibbles(&bytes[4..], values, f32::from);
    for (index, value) in values.iter_mut().enumerate() {
        if fifth >> index & 1 == 1 {
            *value += 16.0;
        }
    }
}

/// d, 32 i8.
pub(super) fn q8_0(block: &[u8; 34], values: &mut [f32; 32]) {
    let d = half_at(block, 0);
    for (value, byte) in values.iter_mut().zip(&block[2..]) {
        *value = f32::from(byte.cast_signed()) * d;
    }
}
