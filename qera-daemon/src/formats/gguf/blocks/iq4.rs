//! `IQ4_NL` and `IQ4_XS`: 4 bits that name one of 16 uneven levels.

use super::parts::{half_at, nibble_at, nibbles, u16_at};

/// The levels, from ggml's `kvalues_iq4nl`.
const LEVELS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

fn level(q: u8) -> f32 {
    f32::from(LEVELS[usize::from(q & 15)])
}

/// d, 16 bytes of nibbles.
pub(super) fn iq4_nl(block: &[u8; 18], values: &mut [f32; 32]) {
    let d = half_at(block, 0);
    nibbles(&block[2..], values, |q| d * level(q));
}

/// d, the high 2 bits of eight scales, 4 bytes with their low 4 bits, 128 bytes of nibbles: 16 for
/// each sub-block of 32.
pub(super) fn iq4_xs(block: &[u8; 136], values: &mut [f32; 256]) {
    let (head, qs) = block.split_at(8);
    let (d, scales_high) = (half_at(head, 0), u16_at(head, 2));
    let parts = values.as_chunks_mut::<32>().0.iter_mut();
    for (index, (out, bytes)) in parts.zip(qs.as_chunks::<16>().0).enumerate() {
        let low = i16::from(nibble_at(&head[4..], index));
        let high = (scales_high >> (2 * index) & 3).cast_signed();
        let scale = d * f32::from((low | high << 4) - 32);
        nibbles(bytes, out, |q| scale * level(q));
    }
}
