//! A block of Q4_0 as GGUF has it ([the module](super) says how).

use half::f16;

use super::super::levels::Levels;
use super::{BLOCK, levels};

/// How many bytes a block takes.
const BYTES: usize = 18;
/// The code that stands for 0.
const ZERO: u8 = 8;

/// Says how many bytes the blocks of a row take.
pub(in super::super) const fn row_len(in_features: usize) -> usize {
    in_features.div_ceil(BLOCK).saturating_mul(BYTES)
}

/// Returns the bytes of a block of a row.
pub(in super::super) fn block(block: usize, row: &[u8]) -> &[u8] {
    &row[block * BYTES..][..BYTES]
}

/// Returns the bytes of a block of a row.
pub(in super::super) fn block_mut(block: usize, row: &mut [u8]) -> &mut [u8] {
    &mut row[block * BYTES..][..BYTES]
}

/// Writes a block's scale and fills it with codes of 0, or returns `false` if no block has such
/// levels.
pub(in super::super) fn write_scale(wanted: &Levels, block: &mut [u8]) -> bool {
    let (scale, codes) = block.split_at_mut(2);
    scale.copy_from_slice(&f16::from_f32(wanted.step).to_le_bytes());
    codes.fill(ZERO << 4 | ZERO);
    wanted.step != 0.0 && read_scale(block) == Some(*wanted)
}

/// Returns a block's levels, with step 0 where ggml wrote a scale of 0, or `None` where the scale
/// is infinite or NaN.
pub(in super::super) fn read_scale(block: &[u8]) -> Option<Levels> {
    let step = f16::from_le_bytes([block[0], block[1]]).to_f32();
    step.is_finite().then(|| levels(step))
}

/// Writes the code of an element, 0 to 15.
pub(in super::super) fn write_code(place: usize, code: u8, block: &mut [u8]) {
    let byte = &mut block[2 + place % (BLOCK / 2)];
    *byte = if place < BLOCK / 2 {
        *byte & 0xf0 | code
    } else {
        *byte & 0x0f | code << 4
    };
}

/// Returns the integer of an element, -8 to 7.
pub(in super::super) fn read_code(place: usize, block: &[u8]) -> i8 {
    let byte = block[2 + place % (BLOCK / 2)];
    let code = if place < BLOCK / 2 {
        byte & 0x0f
    } else {
        byte >> 4
    };
    code.cast_signed() - 8
}
