//! `Q1_0` and `Q2_0`: d times -1 or 1, and d times -1, 0, 1 or 2, bits in order from the lowest.

use super::parts::half_at;

/// d, 16 bytes of bits, in blocks of 128.
pub(super) fn q1_0(block: &[u8; 18], values: &mut [f32; 128]) {
    let d = half_at(block, 0);
    for (out, byte) in values.as_chunks_mut::<8>().0.iter_mut().zip(&block[2..]) {
        for (bit, value) in out.iter_mut().enumerate() {
            *value = if byte >> bit & 1 == 1 { d } else { -d };
        }
    }
}

/// d, 16 bytes of 2 bits, in blocks of 64.
pub(super) fn q2_0(block: &[u8; 18], values: &mut [f32; 64]) {
    let d = half_at(block, 0);
    for (out, byte) in values.as_chunks_mut::<4>().0.iter_mut().zip(&block[2..]) {
        for (index, value) in out.iter_mut().enumerate() {
            *value = (f32::from(byte >> (2 * index) & 3) - 1.0) * d;
        }
    }
}
