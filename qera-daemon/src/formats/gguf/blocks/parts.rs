//! What the layouts have in common: numbers of two and four bytes, nibbles, signs,
//! grids.

use half::f16;

/// The f16 that starts at a byte.
pub(super) fn half_at(bytes: &[u8], start: usize) -> f32 {
    f16::from_bits(u16_at(bytes, start)).to_f32()
}

/// The u16 that starts at a byte.
pub(super) fn u16_at(bytes: &[u8], start: usize) -> u16 {
    u16::from_le_bytes([bytes[start], bytes[start + 1]])
}

/// The u32 that starts at a byte.
pub(super) fn u32_at(bytes: &[u8], start: usize) -> u32 {
    u32::from(u16_at(bytes, start)) | u32::from(u16_at(bytes, start + 2)) << 16
}

/// The low nibbles of all bytes, then their high nibbles: how most types lay out 4 bits.
pub(super) fn nibbles(bytes: &[u8], values: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = values.split_at_mut(bytes.len());
    for (out, byte) in low.iter_mut().zip(bytes) {
        *out = value(byte & 15);
    }
    for (out, byte) in high.iter_mut().zip(bytes) {
        *out = value(byte >> 4);
    }
}

/// The nibble at an index of bytes that hold two each, the low one first.
pub(super) fn nibble_at(bytes: &[u8], index: usize) -> u8 {
    bytes[index / 2] >> (4 * (index % 2)) & 15
}

/// The value with its sign turned where the bit at an index is set.
pub(super) fn signed(value: f32, signs: u8, index: usize) -> f32 {
    f32::from_bits(value.to_bits() ^ u32::from(signs >> index & 1) << 31)
}

/// Eight signs from seven bits: the eighth makes the number of negative ones even.
pub(super) fn even_signs(bits: u32) -> u8 {
    let [low, ..] = (bits & 127).to_le_bytes();
    low | if low.count_ones().is_multiple_of(2) {
        0
    } else {
        128
    }
}

/// The points of a grid, from their coordinates' two bits.
pub(super) const fn points_of_8<const N: usize>(
    packed: &[u16; N],
    coordinates: [i8; 4],
) -> [[i8; 8]; N] {
    let mut points = [[0; 8]; N];
    let mut index = 0;
    while index < 8 * N {
        let bits = packed[index / 8] >> (2 * (index % 8)) & 3;
        points[index / 8][index % 8] = coordinates[bits as usize];
        index += 1;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_sign_makes_them_even() {
        for bits in 0..128 {
            let signs = even_signs(bits | 1 << 7);
            assert_eq!(u32::from(signs & 127), bits);
            assert!(signs.count_ones().is_multiple_of(2), "{bits}");
        }
    }
}
