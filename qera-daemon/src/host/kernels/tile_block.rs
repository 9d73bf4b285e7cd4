//! A packed block whose tiles are summed by AMX, or by its model: 32 x 32 sums at a time.
//!
//! Panels are cut into blocks of 16 steps (`micro::amx`). As lanes a block has 32 channels for each
//! step, as columns 16 steps for each channel; where numbers are split, a block of their upper
//! parts stands before one of their lower ones.

use core::ops::Range;

use crate::host::kernels::Kernel;
use crate::host::kernels::micro::amx::{CHANNELS, NumberParts, STEPS, SUM_STEPS, TileUnit};
use crate::host::kernels::pack::pack_pairs;
use crate::host::kernels::packed_block::{PackedBlock, PanelShape, TileRun, Tiles};
use crate::host::kernels::stored::StoredRows;

/// Packed numbers of a block in one part.
const BLOCK: usize = CHANNELS * STEPS;

/// A packed block of rows.
pub(super) struct TileBlock<'p> {
    pub(super) packed: PackedBlock<'p, u32>,
    pub(super) kernel: Kernel,
    pub(super) product: TileProduct,
}

/// The unit that multiplies, and whether its numbers are whole or split.
#[derive(Debug, Clone, Copy)]
pub(super) struct TileProduct {
    pub(super) shape: PanelShape,
    pub(super) unit: TileUnit,
    pub(super) parts: NumberParts,
}

impl Tiles for TileBlock<'_> {
    fn tiles(&self, task: Range<usize>, give: &mut dyn FnMut(TileRun<'_>)) {
        let TileProduct { unit, parts, .. } = self.product;
        let session = unit.session();
        let length = SUM_STEPS * CHANNELS * parts.count();
        let mut tile = [0.0; CHANNELS * CHANNELS];
        let sum = |lanes: &[u32], columns: &[u32], sums: &mut [f64]| {
            sums.fill(0.0);
            for (lanes, columns) in lanes.chunks(length).zip(columns.chunks(length)) {
                session.product(parts, columns, lanes, &mut tile);
                self.kernel.add(&tile, sums);
            }
        };
        let mut sums = [0.0; CHANNELS * CHANNELS];
        self.packed.each_tile(task, &mut sums, sum, give);
    }
}

/// Packs bf16 rows; steps beyond the last row are zeros.
pub(crate) fn pack_whole(rows: StoredRows<'_>, first: usize, panel: &mut [u32], width: usize) {
    let (held, padding) = panel.split_at_mut(rows.rows().div_ceil(2) * width);
    pack_pairs(rows, first, held, width);
    padding.fill(0);
}

/// Packs f16 rows as sums of two bf16 numbers: the upper 8 of the 11 significant bits, and the
/// rest.
pub(crate) fn pack_split(rows: StoredRows<'_>, first: usize, panel: &mut [u32], width: usize) {
    let (m, count) = (rows.in_features, rows.rows());
    let held = width.min(m - first);
    let mut wide = [[0.0_f32; CHANNELS]; 2];
    for (block, both) in panel.chunks_exact_mut(2 * BLOCK).enumerate() {
        let (upper, lower) = both.split_at_mut(BLOCK);
        let steps = upper
            .chunks_exact_mut(width)
            .zip(lower.chunks_exact_mut(width));
        for (step, (upper, lower)) in steps.enumerate() {
            for (odd, wide) in wide.iter_mut().enumerate() {
                let row = 2 * (block * STEPS + step) + odd;
                if row < count {
                    let at = row * m + first;
                    rows.widen(at..at + held, &mut wide[..held]);
                } else {
                    wide.fill(0.0);
                }
            }
            let [even, odd] = &wide;
            let pairs = even.iter().zip(odd);
            for ((upper, lower), (even, odd)) in upper.iter_mut().zip(lower).zip(pairs) {
                let (even, odd) = (SplitNumber::of(*even), SplitNumber::of(*odd));
                *upper = even.upper >> 16 | odd.upper;
                *lower = even.lower >> 16 | odd.lower;
            }
        }
    }
}

/// Bits of two bf16 numbers as f32, whose sum is a number of at most 16 significant bits.
struct SplitNumber {
    upper: u32,
    lower: u32,
}

impl SplitNumber {
    const UPPER_BITS: u32 = 0xffff_0000;

    fn of(x: f32) -> Self {
        let upper = x.to_bits() & Self::UPPER_BITS;
        // Exact: what is left has the other bits.
        let lower = (x - f32::from_bits(upper)).to_bits();
        Self { upper, lower }
    }
}

/// Turns each block of lanes into tiles of columns: two tiles of 16 channels with 16 steps each.
pub(crate) fn regroup_tiles(_: PanelShape, lanes: &[u32], first: usize, panel: &mut [u32]) {
    let from = &lanes[first / CHANNELS * panel.len()..][..panel.len()];
    for (to, from) in panel.chunks_exact_mut(BLOCK).zip(from.chunks_exact(BLOCK)) {
        for (channel, steps) in to.chunks_exact_mut(STEPS).enumerate() {
            for (to, from) in steps.iter_mut().zip(from.chunks_exact(CHANNELS)) {
                *to = from[channel];
            }
        }
    }
}
