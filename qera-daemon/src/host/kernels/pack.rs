//! Rows as the loops of a form want them: in panels of `lanes` channels, step after step, from the
//! form in which they came.

use crate::host::kernels::stored::{StoredNumbers, StoredRows};

/// Packs channels `first..first + width` of every step; what lies beyond the last channel stays
/// zero.
pub(crate) type Pack<T> = fn(rows: StoredRows<'_>, first: usize, panel: &mut [T], width: usize);

pub(crate) fn pack_numbers(rows: StoredRows<'_>, first: usize, panel: &mut [f32], width: usize) {
    let m = rows.in_features;
    let count = width.min(m - first);
    for (t, step) in panel.chunks_exact_mut(width).enumerate() {
        let at = t * m + first;
        rows.widen(at..at + count, &mut step[..count]);
        step[count..].fill(0.0);
    }
}

/// Rows times the square roots of their weights: see `row_weights`.
pub(crate) fn pack_weighted(rows: StoredRows<'_>, first: usize, panel: &mut [f32], width: usize) {
    pack_numbers(rows, first, panel, width);
    let Some(weights) = rows.weights else {
        return;
    };
    for (t, step) in panel.chunks_exact_mut(width).enumerate() {
        let root = weights.root(t);
        step.iter_mut().for_each(|x| *x *= root);
    }
}

/// Pairs of bf16 numbers of two rows, the earlier one in the low half; a last row without another
/// has zeros beside it.
pub(crate) fn pack_pairs(rows: StoredRows<'_>, first: usize, panel: &mut [u32], width: usize) {
    let m = rows.in_features;
    let count = width.min(m - first);
    let rows_here = rows.rows();
    for (t, step) in panel.chunks_exact_mut(width).enumerate() {
        let (earlier, later) = (2 * t * m + first, (2 * t + 1) * m + first);
        let with_later = 2 * t + 1 < rows_here;
        match rows.numbers {
            StoredNumbers::Bytes(bytes, _) => {
                let (low, _) = bytes[2 * earlier..2 * (earlier + count)].as_chunks::<2>();
                if with_later {
                    let (high, _) = bytes[2 * later..2 * (later + count)].as_chunks::<2>();
                    for ((pair, low), high) in step.iter_mut().zip(low).zip(high) {
                        *pair = u32::from(u16::from_le_bytes(*low))
                            | u32::from(u16::from_le_bytes(*high)) << 16;
                    }
                } else {
                    for (pair, low) in step.iter_mut().zip(low) {
                        *pair = u32::from(u16::from_le_bytes(*low));
                    }
                }
            }
            StoredNumbers::Floats(numbers) => {
                let low = &numbers[earlier..earlier + count];
                if with_later {
                    let high = &numbers[later..later + count];
                    for ((pair, low), high) in step.iter_mut().zip(low).zip(high) {
                        *pair = low.to_bits() >> 16 | high.to_bits();
                    }
                } else {
                    for (pair, low) in step.iter_mut().zip(low) {
                        *pair = low.to_bits() >> 16;
                    }
                }
            }
        }
        step[count..].fill(0);
    }
}
