//! W~ of a layer as it is written in a GGUF: the codes and scales of its grid in ggml's blocks, or
//! its numbers in bf16, with rows in the file's order.

use half::f16;
use qera_core::dtype::FloatDtype;

use crate::error::Fatal;
use crate::formats::gguf::blocks::encode::{BLOCK, SymmetricBlock};
use crate::formats::gguf::container::NotInBlocks;
use crate::formats::safetensors::header::{are_exact, encode};
use crate::weights::Weights;
use crate::weights::frozen::packed::PackedLayer;
use crate::weights::gguf::rows::RowOrder;

/// Bytes that are passed on at a time, about.
const PIECE: usize = 1 << 18;
/// Added to a code to make it a byte that is not negative.
const OFFSET: u8 = 128;

/// Why W~ of a layer does not fit the blocks of its grid; `None` where it does.
///
/// # Errors
/// The layer's codes cannot be had, as for [`Weights::with_codes`].
pub(crate) fn not_held(weights: &Weights, layer: usize) -> Result<Option<NotInBlocks>, Fatal> {
    let mut found = None;
    weights.with_codes(layer, |of| {
        let mut has_zeros = false;
        let mut codes = vec![0; of.shape.in_features];
        for row in 0..of.shape.out_features {
            let blocks = codes_of(of, row, &mut codes).zip(of.steps_of(row));
            for (block, (codes, &step)) in blocks.enumerate() {
                has_zeros |= is_zero(&codes);
                if scale_of(step, &codes).is_none() {
                    found = Some(NotInBlocks::Scale { row, block, step });
                    return Ok(());
                }
            }
        }
        // With nearest rounding, tiny weights have codes of zero although W~ is not zero there.
        if has_zeros && !weights.rounding().uses_rows() && !is_all(weights, layer, of)? {
            found = Some(NotInBlocks::Tiny);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Whether codes and scales give exactly W~.
fn is_all(weights: &Weights, layer: usize, of: &PackedLayer) -> Result<bool, Fatal> {
    let mut unpacked = vec![0.0; of.shape.in_features];
    let (mut row, mut same) = (0, true);
    weights.quantized(layer, |piece| {
        for values in piece.chunks_exact(of.shape.in_features) {
            of.unpack(row, &mut unpacked);
            same &= are_equal(values, &unpacked);
            row += 1;
        }
        Ok(())
    })?;
    Ok(same)
}

/// Whether the numbers are the same; 0 equals -0.
#[expect(clippy::float_cmp, reason = "what is stored is exact or it is wrong")]
pub(crate) fn are_equal(values: &[f32], others: &[f32]) -> bool {
    values.iter().zip(others).all(|(x, y)| x == y)
}

/// Writes W~ as blocks through `put`.
///
/// # Errors
/// Any error of `put`.
pub(crate) fn put_blocks(
    of: &PackedLayer,
    block: SymmetricBlock,
    rows: RowOrder,
    mut put: impl FnMut(&[u8]) -> Result<(), Fatal>,
) -> Result<(), Fatal> {
    let mut codes = vec![0; of.shape.in_features];
    let row_bytes = of.shape.blocks() * block.bytes();
    let mut bytes = Vec::with_capacity(PIECE + row_bytes);
    for row in rows.as_stored(of.shape.out_features) {
        for (codes, &step) in codes_of(of, row, &mut codes).zip(of.steps_of(row)) {
            // Fitting was checked before, and what is written is read again.
            let scale = scale_of(step, &codes).unwrap_or(f16::NAN);
            block.put(scale, &codes, &mut bytes);
        }
        if bytes.len() >= PIECE {
            put(&bytes)?;
            bytes.clear();
        }
    }
    put(&bytes)
}

/// The blocks of a row, as signed codes.
fn codes_of<'c>(
    of: &PackedLayer,
    row: usize,
    codes: &'c mut [u8],
) -> impl Iterator<Item = [i8; BLOCK]> + use<'c> {
    of.codes_of(row, Some(OFFSET.into()), codes);
    let blocks = codes.as_chunks::<BLOCK>().0.iter();
    blocks.map(|block| block.map(|code| (code ^ OFFSET).cast_signed()))
}

fn is_zero(codes: &[i8; BLOCK]) -> bool {
    codes.iter().all(|code| *code == 0)
}

/// The scale in f16; any scale will do where all codes are zero. `None` where f16 has no such
/// number.
fn scale_of(step: f32, codes: &[i8; BLOCK]) -> Option<f16> {
    let half = f16::from_f32(step);
    if half.to_f32().to_bits() == step.to_bits() {
        return Some(half);
    }
    is_zero(codes).then_some(f16::ZERO)
}

/// Writes W~ as bf16 numbers through `put`.
///
/// # Errors
/// Any error of `put`, and those of [`Weights::quantized`]; [`Fatal::Solve`] for a number that bf16
/// does not hold.
pub(crate) fn put_bf16(
    weights: &Weights,
    layer: usize,
    rows: RowOrder,
    put: impl FnOnce(&[u8]) -> Result<(), Fatal>,
) -> Result<(), Fatal> {
    let of = &weights.layers()[layer];
    let row_bytes = of.in_features * FloatDtype::Bf16.size_bytes();
    let mut bytes = vec![0; of.out_features * row_bytes];
    let mut row = 0;
    weights.quantized(layer, |piece| {
        for values in piece.chunks_exact(of.in_features) {
            if !are_exact(values, FloatDtype::Bf16) {
                return Err(Fatal::Solve {
                    layer: of.name.clone(),
                    reason: NotExact { row }.into(),
                });
            }
            let at = rows.stored(row) * row_bytes;
            bytes[at..][..row_bytes].copy_from_slice(&encode(values, FloatDtype::Bf16));
            row += 1;
        }
        Ok(())
    })?;
    put(&bytes)
}

/// The error for a number that its tensor's type does not hold.
#[derive(Debug, thiserror::Error)]
#[error(
    "row {row} of W~ has a number that bf16 does not hold (this is a defect, please report it)"
)]
struct NotExact {
    row: usize,
}
