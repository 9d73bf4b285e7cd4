//! A block of rows, packed for the loops of a form, and the tiles of the triangle that it gives.
//!
//! The rows are packed once for a block: in panels of `lanes` channels and in panels of `columns`
//! channels, one step after the other (a step is a row, or a pair of rows for bf16 products).

use core::ops::Range;

use bytemuck::Pod;
use qera_core::dtype::FloatDtype;

use crate::host::cores::Cores;
use crate::host::kernels::micro::{TILE_MAX, Tile, amx};
use crate::host::kernels::pack::Pack;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::stored::StoredRows;
use crate::host::kernels::{Kernel, PairProducts, SUM_ROWS, TileShape};

/// Numbers of a channel that are packed at a time.
pub(crate) const BLOCK_DEPTH: usize = 1024;

/// How rows are packed, whatever they are packed as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PanelShape {
    /// Channels of a panel, and of one of the other kind.
    pub(crate) lanes: usize,
    pub(crate) columns: usize,
    /// Rows that a packed number holds.
    pub(crate) rows_per_step: usize,
    /// Steps are padded to a multiple of so many.
    padded_to: usize,
    /// Packed numbers of a channel at a step.
    parts: usize,
}

impl PanelShape {
    /// The packing for rows whose numbers have this type.
    pub(crate) const fn of(kernel: Kernel, dtype: FloatDtype) -> Self {
        let TileShape { lanes, columns } = kernel.tile();
        let numbers = Self {
            lanes,
            columns,
            rows_per_step: 1,
            padded_to: 1,
            parts: 1,
        };
        match kernel.pairs {
            Some(_) if !kernel.multiplies_in_bf16(dtype) => numbers,
            #[cfg(target_arch = "x86_64")]
            Some(PairProducts::Avx512Bf16) => Self {
                rows_per_step: 2,
                ..numbers
            },
            Some(PairProducts::Amx(_)) => Self {
                lanes: amx::CHANNELS,
                columns: amx::CHANNELS,
                rows_per_step: 2,
                padded_to: amx::STEPS,
                parts: amx::NumberParts::of(dtype).count(),
            },
            None => numbers,
        }
    }

    /// The most rows that a block has.
    const fn block_rows(self) -> usize {
        BLOCK_DEPTH / self.parts * self.rows_per_step
    }

    /// Packed numbers of a channel.
    const fn depth(self, rows: usize) -> usize {
        let steps = rows.div_ceil(self.rows_per_step);
        steps.next_multiple_of(self.padded_to) * self.parts
    }

    /// Packed numbers of the largest block of so many rows of this width.
    pub(crate) const fn most_numbers(self, in_features: usize, rows: usize) -> usize {
        let most = self.block_rows();
        let rows = if rows < most { rows } else { most };
        let channels =
            in_features.next_multiple_of(self.lanes) + in_features.next_multiple_of(self.columns);
        channels * self.depth(rows)
    }
}

/// Writes the panel of `columns` channels from `first` on, from where they lie as lanes.
pub(crate) type Regroup<T> = fn(shape: PanelShape, lanes: &[T], first: usize, panel: &mut [T]);

/// How rows are packed as numbers of one kind.
pub(crate) struct Packing<T> {
    pub(crate) shape: PanelShape,
    pub(crate) pack: Pack<T>,
    pub(crate) regroup: Regroup<T>,
}

/// A packed block.
pub(crate) struct PackedBlock<'p, T> {
    shape: PanelShape,
    m: usize,
    depth: usize,
    in_lanes: &'p [T],
    in_columns: &'p [T],
}

impl<T: Pod + Send + Sync> Packing<T> {
    /// Packs block after block, and gives each with its number of rows.
    pub(crate) fn blocks(
        &self,
        cores: &Cores,
        rows: StoredRows<'_>,
        scratch: &mut PageVec<T>,
        mut with: impl FnMut(PackedBlock<'_, T>, usize),
    ) {
        let (m, shape) = (rows.in_features, self.shape);
        let all = rows.rows();
        for first in (0..all).step_by(shape.block_rows()) {
            let count = shape.block_rows().min(all - first);
            let depth = shape.depth(count);
            let needed = shape.most_numbers(m, count);
            if scratch.len() < needed {
                *scratch = PageVec::default(); // Not both at a time.
                *scratch = PageVec::zeroed(needed);
            }
            let in_lanes = m.next_multiple_of(shape.lanes) * depth;
            let (lanes, columns) = scratch[..needed].split_at_mut(in_lanes);
            let block = rows.slice(first..first + count);
            let panels = lanes.chunks_mut(shape.lanes * depth).enumerate().collect();
            cores.spread(panels, |(panel, memory)| {
                (self.pack)(block, panel * shape.lanes, memory, shape.lanes);
            });
            let lanes = &*lanes;
            let panels = columns.chunks_mut(shape.columns * depth).enumerate();
            cores.spread(panels.collect(), |(panel, memory): (usize, &mut [T])| {
                (self.regroup)(shape, lanes, panel * shape.columns, memory);
            });
            let packed = PackedBlock {
                shape,
                m,
                depth,
                in_lanes: lanes,
                in_columns: columns,
            };
            with(packed, count);
        }
    }
}

/// Packs channels as columns: near each other in memory as lanes, where in the rows they are
/// in_features apart. Beyond the last channel stands that channel again; nobody asks for its sums.
pub(crate) fn regroup<T: Copy>(
    PanelShape {
        lanes: wide,
        columns,
        ..
    }: PanelShape,
    lanes: &[T],
    first: usize,
    panel: &mut [T],
) {
    let depth = panel.len() / columns;
    let held = lanes.len() / depth;
    let within = first % wide;
    if columns == 8 && within + columns <= wide && first + columns <= held {
        let lanes = &lanes[(first - within) * depth..][..wide * depth];
        let steps = panel.chunks_exact_mut(columns);
        for (to, from) in steps.zip(lanes.chunks_exact(wide)) {
            copy::<T, 8>(to, &from[within..]);
        }
        return;
    }
    for c in 0..columns {
        let channel = (first + c).min(held - 1);
        let from = &lanes[channel / wide * wide * depth..][channel % wide..];
        let to = panel[c..].iter_mut().step_by(columns);
        for (to, from) in to.zip(from.iter().step_by(wide)) {
            *to = *from;
        }
    }
}

/// Copies numbers, so many that the compiler knows how many.
fn copy<T: Copy, const N: usize>(to: &mut [T], from: &[T]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk::<N>()) {
        *to = *from;
    }
}

/// A run of a row of the triangle: row, first column, and what belongs to it.
pub(crate) enum TileRun<'a> {
    /// A run whose sums will come next; the last number is how many.
    Soon(usize, usize, usize),
    /// A run with its sums.
    Sums(usize, usize, &'a [f64]),
}

/// A block of rows, packed, whose tiles can be asked for.
pub(crate) trait Tiles: Sync {
    /// Gives the sums of the rows `task` of the triangle.
    fn tiles(&self, task: Range<usize>, give: &mut dyn FnMut(TileRun<'_>));
}

impl<T> PackedBlock<'_, T> {
    /// Sums the rows `task` of the triangle, a tile at a time, and hands each tile to `give`. `sum`
    /// computes one tile from its packed lanes and columns: one sum for each lane and column.
    #[inline]
    pub(crate) fn each_tile(
        &self,
        task: Range<usize>,
        sums: &mut [f64],
        mut sum: impl FnMut(&[T], &[T], &mut [f64]),
        give: &mut dyn FnMut(TileRun<'_>),
    ) {
        let PanelShape { lanes, columns, .. } = self.shape;
        let (m, depth) = (self.m, self.depth);
        let sums = &mut sums[..lanes * columns];
        for panel in task.start / lanes..m.div_ceil(lanes) {
            let j = panel * lanes;
            let a = &self.in_lanes[j * depth..][..lanes * depth];
            let last = (j + lanes).min(m);
            for i in task.clone().step_by(columns).take_while(|i| *i < last) {
                let b = &self.in_columns[i * depth..][..columns * depth];
                let runs = (i..(i + columns).min(task.end)).map(|i| (i, j.max(i)));
                for (i, from) in runs.clone().filter(|(_, from)| *from < last) {
                    give(TileRun::Soon(i, from, last - from));
                }
                sum(a, b, sums);
                for ((i, from), sums) in runs.zip(sums.chunks_exact(lanes)) {
                    if from < last {
                        give(TileRun::Sums(i, from, &sums[from - j..last - j]));
                    }
                }
            }
        }
    }
}

/// Multiplies packed lanes and columns into a tile.
pub(crate) type Multiply<T> = fn(&[T], &[T], &mut Tile);

/// A packed block whose tiles are summed in vectors.
pub(crate) struct VectorBlock<'p, T> {
    pub(crate) packed: PackedBlock<'p, T>,
    pub(crate) kernel: Kernel,
    pub(crate) multiply: Multiply<T>,
}

impl<T: Copy + Send + Sync> Tiles for VectorBlock<'_, T> {
    fn tiles(&self, task: Range<usize>, give: &mut dyn FnMut(TileRun<'_>)) {
        let PanelShape {
            lanes,
            columns,
            rows_per_step,
            ..
        } = self.packed.shape;
        // f32 over at most SUM_ROWS rows, f64 over all.
        let steps = SUM_ROWS / rows_per_step;
        let mut tile = [0.0; TILE_MAX];
        let sum = |a: &[T], b: &[T], sums: &mut [f64]| {
            sums.fill(0.0);
            for (a, b) in a.chunks(steps * lanes).zip(b.chunks(steps * columns)) {
                (self.multiply)(a, b, &mut tile);
                self.kernel.add(&tile[..sums.len()], sums);
            }
        };
        let mut sums = [0.0; TILE_MAX];
        self.packed.each_tile(task, &mut sums, sum, give);
    }
}
