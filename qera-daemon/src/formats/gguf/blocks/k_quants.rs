//! The K types, in blocks of 256: sub-blocks of 16 or 32, whose scales are small integers times the
//! block's own, d. In `Q2_K`, `Q4_K` and `Q5_K` a sub-block has a least number besides: the product
//! of another small integer and the block's dmin, subtracted.

use super::parts::half_at;

/// 16 bytes of scales (low nibble) and least numbers (high), 64 of 2 bits, d, dmin.
///
/// Each half of 128 has 32 bytes: number 32 j + l of it is in byte l, at bit 2 j.
pub(super) fn q2_k(block: &[u8; 84], values: &mut [f32; 256]) {
    let (scales, rest) = block.split_at(16);
    let (qs, ends) = rest.split_at(64);
    let (d, dmin) = (half_at(ends, 0), half_at(ends, 2));
    for (index, out) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[index] & 15);
        let least = dmin * f32::from(scales[index] >> 4);
        let two_bits = TwoBits::of(qs, index);
        for (value, byte) in out.iter_mut().zip(two_bits.bytes) {
            *value = scale * f32::from(byte >> two_bits.shift & 3) - least;
        }
    }
}

/// Where the two bits of 16 numbers lie, in halves of 128 numbers.
struct TwoBits<'b> {
    bytes: &'b [u8],
    shift: usize,
}

impl<'b> TwoBits<'b> {
    fn of(qs: &'b [u8], sixteen: usize) -> Self {
        let start = sixteen / 8 * 32 + sixteen % 2 * 16;
        Self {
            bytes: &qs[start..start + 16],
            shift: sixteen % 8 / 2 * 2,
        }
    }
}

/// 32 bytes of third bits, 64 of 2 bits, 12 of scales, d.
///
/// The 2 bits lie as in `Q2_K`; of the third bits, bit j of byte l belongs to number 32 j + l, and
/// takes 4 away where it is *not* set.
pub(super) fn q3_k(block: &[u8; 110], values: &mut [f32; 256]) {
    let (third, rest) = block.split_at(32);
    let (qs, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(12);
    let d = half_at(d, 0);
    for (index, out) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scale_of_q3_k(scales, index));
        let two_bits = TwoBits::of(qs, index);
        let third = &third[index % 2 * 16..][..16];
        for ((value, low), high) in out.iter_mut().zip(two_bits.bytes).zip(third) {
            let q = (low >> two_bits.shift & 3 | (high >> (index / 2) & 1) << 2).cast_signed() - 4;
            *value = scale * f32::from(q);
        }
    }
}

/// The low 4 bits of 16 scales are the nibbles of 8 bytes, all low ones first; the high 2 bits are
/// in the 4 bytes after them.
fn scale_of_q3_k(scales: &[u8], index: usize) -> i8 {
    let low = scales[index % 8] >> (index / 8 * 4) & 15;
    let high = scales[8 + index % 4] >> (index / 4 * 2) & 3;
    (low | high << 4).cast_signed() - 32
}

/// d, dmin, 12 bytes of scales and least numbers, 128 of nibbles.
pub(super) fn q4_k(block: &[u8; 144], values: &mut [f32; 256]) {
    let (head, qs) = block.split_at(16);
    let pairs = values.as_chunks_mut::<64>().0.iter_mut();
    for (index, (out, bytes)) in pairs.zip(qs.as_chunks::<32>().0).enumerate() {
        let (low, high) = out.split_at_mut(32);
        let step = Step::of(head, 2 * index);
        for (value, byte) in low.iter_mut().zip(bytes) {
            *value = step.scale * f32::from(byte & 15) - step.least;
        }
        let step = Step::of(head, 2 * index + 1);
        for (value, byte) in high.iter_mut().zip(bytes) {
            *value = step.scale * f32::from(byte >> 4) - step.least;
        }
    }
}

/// d, dmin, 12 bytes of scales and least numbers, 32 of fifth bits (bit j of byte l belongs to
/// number 32 j + l), 128 of nibbles.
pub(super) fn q5_k(block: &[u8; 176], values: &mut [f32; 256]) {
    let (head, rest) = block.split_at(16);
    let (fifth, qs) = rest.split_at(32);
    let pairs = values.as_chunks_mut::<64>().0.iter_mut();
    for (index, (out, bytes)) in pairs.zip(qs.as_chunks::<32>().0).enumerate() {
        let (low, high) = out.split_at_mut(32);
        let step = Step::of(head, 2 * index);
        for ((value, byte), fifth) in low.iter_mut().zip(bytes).zip(fifth) {
            let q = byte & 15 | (fifth >> (2 * index) & 1) << 4;
            *value = step.scale * f32::from(q) - step.least;
        }
        let step = Step::of(head, 2 * index + 1);
        for ((value, byte), fifth) in high.iter_mut().zip(bytes).zip(fifth) {
            let q = byte >> 4 | (fifth >> (2 * index + 1) & 1) << 4;
            *value = step.scale * f32::from(q) - step.least;
        }
    }
}

/// What q of a sub-block of `Q4_K` or `Q5_K` is multiplied by, and what is then subtracted.
struct Step {
    scale: f32,
    least: f32,
}

impl Step {
    /// `head` is d, dmin and 12 bytes: the first four scales and their high bits' lenders, the
    /// first four least numbers and the same, the low bits of the last four of both.
    fn of(head: &[u8], index: usize) -> Self {
        let packed = &head[4..16];
        let (scale, least) = if index < 4 {
            (packed[index] & 63, packed[index + 4] & 63)
        } else {
            let low = packed[index + 4];
            (
                low & 15 | packed[index - 4] >> 6 << 4,
                low >> 4 | packed[index] >> 6 << 4,
            )
        };
        Self {
            scale: half_at(head, 0) * f32::from(scale),
            least: half_at(head, 2) * f32::from(least),
        }
    }
}

/// 128 bytes of nibbles, 64 of high 2 bits, 16 i8 scales, d.
///
/// Each half of 128 has 64 bytes of nibbles, all low ones first, and 32 of high bits: number
/// 32 j + l has its own in byte l, at bit 2 j.
pub(super) fn q6_k(block: &[u8; 210], values: &mut [f32; 256]) {
    let (nibbles, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = half_at(d, 0);
    for (index, out) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = d * f32::from(scales[index].cast_signed());
        let (half, within) = (index / 8, index % 8);
        let low = &nibbles[half * 64 + within % 4 * 16..][..16];
        let low_shift = within / 4 * 4;
        let two_bits = TwoBits::of(high, index);
        for ((value, low), high) in out.iter_mut().zip(low).zip(two_bits.bytes) {
            let q = low >> low_shift & 15 | (high >> two_bits.shift & 3) << 4;
            *value = scale * f32::from(q.cast_signed() - 32);
        }
    }
}
