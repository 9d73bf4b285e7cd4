//! What every format shares: checks of a weight's rows, and the loop over their blocks.

use super::error::GridError;

/// Quantizes a weight block by block. `quantize` returns `false` for a block with a value that is
/// not finite.
#[inline(always)]
pub(super) fn quantize_blocks(
    weight: &[f32],
    in_features: usize,
    block_size: usize,
    out: &mut [f32],
    mut quantize: impl FnMut(&[f32], &mut [f32]) -> bool,
) -> Result<(), GridError> {
    check_rows(weight.len(), in_features)?;
    check_length(weight.len(), out.len())?;
    let rows = weight
        .chunks_exact(in_features)
        .zip(out.chunks_exact_mut(in_features));
    for (row, (values, out)) in rows.enumerate() {
        let mut blocks = values.chunks(block_size).zip(out.chunks_mut(block_size));
        let quantized = blocks.all(|(x, q)| quantize(x, q));
        if !quantized {
            return Err(non_finite(row, values));
        }
    }
    Ok(())
}

/// Names the first weight of a row that is not finite; the caller knows that there is one.
#[cold]
pub(super) fn non_finite(row: usize, values: &[f32]) -> GridError {
    let column = values
        .iter()
        .position(|x| !x.is_finite())
        .unwrap_or_default();
    GridError::NonFinite {
        index: row * values.len() + column,
        row,
        column,
    }
}

pub(super) const fn check_rows(values: usize, in_features: usize) -> Result<(), GridError> {
    if in_features > 0 && values.is_multiple_of(in_features) {
        Ok(())
    } else {
        Err(GridError::Length {
            values,
            in_features,
        })
    }
}

pub(super) const fn check_length(needed: usize, lent: usize) -> Result<(), GridError> {
    if needed == lent {
        Ok(())
    } else {
        Err(GridError::OutputLength { needed, lent })
    }
}
