//! `TQ1_0` and `TQ2_0`, in blocks of 256: d times -1, 0 or 1 (`TQ2_0` can write 2 as well).

use super::parts::half_at;

/// What a byte is multiplied by, modulo 256, so that its digit at an index comes first.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// 32 and 16 bytes of five ternary digits each, 4 bytes of four, d.
///
/// A byte is a fraction of 256 with its digits after the point. Of the first 32 bytes come all
/// first digits, then all second ones, and so on; then the same of the 16, and of the 4.
pub(super) fn tq1_0(block: &[u8; 54], values: &mut [f32; 256]) {
    let d = half_at(block, 52);
    let (by_32, rest) = values.split_at_mut(160);
    let (by_16, by_4) = rest.split_at_mut(80);
    digits(&block[..32], by_32, d);
    digits(&block[32..48], by_16, d);
    digits(&block[48..52], by_4, d);
}

fn digits(bytes: &[u8], values: &mut [f32], d: f32) {
    for (out, power) in values.chunks_exact_mut(bytes.len()).zip(POWERS) {
        for (value, byte) in out.iter_mut().zip(bytes) {
            let digit = (i16::from(byte.wrapping_mul(power)) * 3) >> 8;
            *value = d * f32::from(digit - 1);
        }
    }
}

/// 64 bytes of 2 bits, d. Each half of 128 has 32 bytes: number 32 j + l of it is in byte l, at
/// bit 2 j.
pub(super) fn tq2_0(block: &[u8; 66], values: &mut [f32; 256]) {
    let d = half_at(block, 64);
    let halves = values.as_chunks_mut::<128>().0.iter_mut();
    for (half, bytes) in halves.zip(block.as_chunks::<32>().0) {
        for (j, out) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (value, byte) in out.iter_mut().zip(bytes) {
                *value = d * (f32::from(byte >> (2 * j) & 3) - 1.0);
            }
        }
    }
}
