//! X^T X of a block of rows, tile by tile: folded into a packed triangle while it is in cache
//! ([`fold_products`]), or multiplied with one and summed ([`trace_products`]).
//!
//! The rows are packed once for a block: in panels of `lanes` channels and in panels of `columns`
//! channels, one step after the other (a step is a row, or a pair of rows for bf16 products). The
//! triangle's rows are cut into tasks of [`TASK_CHANNELS`]: a task's `columns` panels stay in the
//! second-level cache while it goes through the `lanes` panels from its diagonal to the right, and
//! its rows of the triangle are one contiguous, disjoint piece of memory, which is what makes the
//! tasks safe to spread over cores.
//!
//! Cost: m (m + 1) flops a row, and one pass over the triangle for each block of [`BLOCK_STEPS`]
//! steps. The blocking is that of Goto and van de Geijn, ACM TOMS 34 (2008) 12.

use core::ops::Range;

use bytemuck::Pod;
use qera_core::packed::packed_offset;
use qera_core::statistics::BlockShare;

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::host::kernels::micro::{TILE_MAX, Tile};
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::stored::{StoredNumbers, StoredRows};
use crate::host::kernels::{Form, Kernel, SUM_ROWS, TileShape, micro};

/// Steps that are packed at a time.
const BLOCK_STEPS: usize = 1024;
/// Rows of the triangle in a task.
const TASK_CHANNELS: usize = 96;

/// Memory for packed rows, used again from block to block.
#[derive(Debug, Default)]
pub struct Scratch {
    numbers: PageVec<f32>,
    pairs: PageVec<u32>,
}

/// Bytes of a [`Scratch`] after so many rows of this width; `in_pairs` says that bf16 rows are
/// multiplied as they came.
#[must_use]
pub(crate) fn scratch_bytes(in_features: usize, rows: usize, in_pairs: bool) -> usize {
    let steps = rows.div_ceil(1 + usize::from(in_pairs)).min(BLOCK_STEPS);
    // Panels of lanes and panels of columns, padded to the widest tile.
    (2 * in_features + micro::LANES_MAX + micro::COLUMNS) * steps * size_of::<f32>()
}

/// Bytes that [`trace_products`] packs of a matrix with so many rows and columns.
#[must_use]
pub(crate) fn trace_bytes(rows: usize, columns: usize) -> usize {
    scratch_bytes(rows, columns, false)
}

/// Multiplies packed lanes and columns into a tile.
type Multiply<T> = dyn Fn(&[T], &[T], &mut Tile) + Sync;

/// What one step of a form packs and multiplies.
struct Loops<'k, T> {
    kernel: Kernel,
    rows_per_step: usize,
    lanes: usize,
    columns: usize,
    multiply: &'k Multiply<T>,
}

/// Folds X^T X of the rows into the means `packed` (upper triangle by rows). `begin` is asked once
/// for each block, with its number of rows, how the block changes a mean. Of rows with weights it is
/// X^T W X in units of `row_weights`.
pub fn fold_products(
    host: Compute<'_>,
    rows: StoredRows<'_>,
    packed: &mut [f64],
    scratch: &mut Scratch,
    mut begin: impl FnMut(usize) -> BlockShare,
) {
    let in_features = rows.in_features;
    in_blocks(host, rows, scratch, |block, count| {
        let share = begin(count);
        let mut pieces = Vec::new();
        let mut rest = &mut *packed;
        for task in tasks(in_features) {
            let length =
                packed_offset(in_features, task.end) - packed_offset(in_features, task.start);
            let (own, after) = rest.split_at_mut(length);
            pieces.push((task, own));
            rest = after;
        }
        host.cores.spread(pieces, |(task, own)| {
            let base = packed_offset(in_features, task.start);
            let at = |i: usize, j: usize| packed_offset(in_features, i) - base + j - i;
            block.tiles(task, &mut |run| match run {
                // The tile takes microseconds, the triangle is far away.
                TileRun::Soon(i, j, length) => micro::prefetch(&own[at(i, j)..at(i, j) + length]),
                TileRun::Sums(i, j, sums) => {
                    share.fold(&mut own[at(i, j)..at(i, j) + sums.len()], sums);
                }
            });
        });
    });
}

/// tr(R P P^T) for the packed R and the columns of P as rows: sum over i, j of R_ij (P P^T)_ij. The
/// diagonal, which is most of it, is summed in f64 throughout.
pub fn trace_products(
    host: Compute<'_>,
    p: ColumnMajor<'_>,
    packed: &[f64],
    scratch: &mut Scratch,
) -> f64 {
    let m = p.rows;
    let mut squares = vec![0.0; m];
    for column in p.values.chunks_exact(m) {
        for (sum, &p) in squares.iter_mut().zip(column) {
            *sum += f64::from(p) * f64::from(p);
        }
    }
    let diagonal = squares.iter().enumerate();
    let mut trace: f64 = diagonal.map(|(i, s)| packed[packed_offset(m, i)] * s).sum();
    let rows = StoredRows::floats(p.values, m);
    in_blocks(host, rows, scratch, |block, _| {
        let mut sums = vec![0.0; tasks(m).count()];
        let pieces = tasks(m).zip(sums.iter_mut()).collect();
        host.cores.spread(pieces, |(task, sum): (_, &mut f64)| {
            block.tiles(task, &mut |run| {
                let TileRun::Sums(i, j, products) = run else {
                    return;
                };
                let at = packed_offset(m, i);
                // Element 0 is the diagonal's where the run begins there.
                let skip = usize::from(i == j);
                let r = &packed[at + j - i + skip..at + j - i + products.len()];
                let terms = r.iter().zip(&products[skip..]);
                *sum += terms.map(|(r, p)| r * p).sum::<f64>();
            });
        });
        trace += 2.0 * sums.iter().sum::<f64>();
    });
    // Rounding may leave -1e-17 where the truth is 0.
    trace.max(0.0)
}

fn tasks(m: usize) -> impl Iterator<Item = Range<usize>> {
    (0..m)
        .step_by(TASK_CHANNELS)
        .map(move |first| first..(first + TASK_CHANNELS).min(m))
}

/// A run of a row of the triangle: row, first column, and what belongs to it.
enum TileRun<'a> {
    /// Its sums will come next, so many of them.
    Soon(usize, usize, usize),
    /// Its sums.
    Sums(usize, usize, &'a [f64]),
}

/// A block of rows, packed, whose tiles can be asked for.
trait Tiles: Sync {
    /// Gives the sums of the rows `task` of the triangle.
    fn tiles(&self, task: Range<usize>, give: &mut dyn FnMut(TileRun<'_>));
}

fn in_blocks(
    Compute { kernel, cores }: Compute<'_>,
    rows: StoredRows<'_>,
    scratch: &mut Scratch,
    mut with: impl FnMut(&dyn Tiles, usize),
) {
    let TileShape { lanes, columns } = kernel.tile();
    let weighted = rows.weights.is_some();
    if kernel.multiplies_bf16() && !weighted && rows.is_bf16() {
        #[cfg(target_arch = "x86_64")]
        {
            let loops = Loops {
                kernel,
                rows_per_step: 2,
                lanes,
                columns,
                multiply: &micro::avx512::pairs,
            };
            loops.run(cores, rows, &mut scratch.pairs, pack_pairs, &mut with);
        }
        return;
    }
    let multiply: &Multiply<f32> = match kernel.0 {
        Form::Portable => &micro::portable::packed,
        #[cfg(target_arch = "x86_64")]
        Form::Avx2 => &micro::avx2::packed,
        #[cfg(target_arch = "x86_64")]
        Form::Avx512 | Form::Avx512Bf16 => &micro::avx512::packed,
    };
    let loops = Loops {
        kernel,
        rows_per_step: 1,
        lanes,
        columns,
        multiply,
    };
    let pack = if weighted {
        pack_weighted
    } else {
        pack_numbers
    };
    loops.run(cores, rows, &mut scratch.numbers, pack, &mut with);
}

/// Packs channels `first..first + width` of every step; what lies beyond the last channel stays
/// zero.
type Pack<T> = fn(rows: StoredRows<'_>, first: usize, panel: &mut [T], width: usize);

fn pack_numbers(rows: StoredRows<'_>, first: usize, panel: &mut [f32], width: usize) {
    let m = rows.in_features;
    let count = width.min(m - first);
    for (t, step) in panel.chunks_exact_mut(width).enumerate() {
        let at = t * m + first;
        rows.widen(at..at + count, &mut step[..count]);
        step[count..].fill(0.0);
    }
}

/// Rows times the square roots of their weights: see `row_weights`.
fn pack_weighted(rows: StoredRows<'_>, first: usize, panel: &mut [f32], width: usize) {
    pack_numbers(rows, first, panel, width);
    let Some(weights) = rows.weights else {
        return;
    };
    for (t, step) in panel.chunks_exact_mut(width).enumerate() {
        let root = weights.root(t);
        step.iter_mut().for_each(|x| *x *= root);
    }
}

#[cfg(target_arch = "x86_64")]
fn pack_pairs(rows: StoredRows<'_>, first: usize, panel: &mut [u32], width: usize) {
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

/// A packed block.
struct PackedBlock<'p, T> {
    loops: &'p Loops<'p, T>,
    m: usize,
    steps: usize,
    in_lanes: &'p [T],
    in_columns: &'p [T],
}

impl<T: Pod + Send + Sync> Loops<'_, T> {
    fn run(
        &self,
        cores: &Cores,
        rows: StoredRows<'_>,
        scratch: &mut PageVec<T>,
        pack: Pack<T>,
        with: &mut impl FnMut(&dyn Tiles, usize),
    ) {
        let m = rows.in_features;
        let (in_lanes, in_columns) = (
            m.next_multiple_of(self.lanes),
            m.next_multiple_of(self.columns),
        );
        let all = rows.rows();
        let most = BLOCK_STEPS * self.rows_per_step;
        for first in (0..all).step_by(most) {
            let count = most.min(all - first);
            let steps = count.div_ceil(self.rows_per_step);
            let needed = (in_lanes + in_columns) * steps;
            if scratch.len() < needed {
                *scratch = PageVec::default(); // Not both at a time.
                *scratch = PageVec::zeroed(needed);
            }
            let (lanes, columns) = scratch[..needed].split_at_mut(in_lanes * steps);
            let block = rows.slice(first..first + count);
            let panels = lanes.chunks_mut(self.lanes * steps).enumerate().collect();
            cores.spread(panels, |(panel, memory)| {
                pack(block, panel * self.lanes, memory, self.lanes);
            });
            let lanes = &*lanes;
            let panels = columns
                .chunks_mut(self.columns * steps)
                .enumerate()
                .collect();
            cores.spread(panels, |(panel, memory): (usize, &mut [T])| {
                self.regroup(lanes, steps, panel * self.columns, memory);
            });
            let packed = PackedBlock {
                loops: self,
                m,
                steps,
                in_lanes: lanes,
                in_columns: columns,
            };
            with(&packed, count);
        }
    }
}

impl<T: Copy> Loops<'_, T> {
    /// Packs the channels from `first` on as columns, from where they lie as lanes: near each other
    /// in memory, where in the rows they are in_features apart. Beyond the last channel stands that
    /// channel again; nobody asks for its sums.
    fn regroup(&self, lanes: &[T], steps: usize, first: usize, panel: &mut [T]) {
        let held = lanes.len() / steps;
        for c in 0..self.columns {
            let channel = (first + c).min(held - 1);
            let from = &lanes[channel / self.lanes * self.lanes * steps..][channel % self.lanes..];
            let to = panel[c..].iter_mut().step_by(self.columns);
            for (to, from) in to.zip(from.iter().step_by(self.lanes)) {
                *to = *from;
            }
        }
    }
}

impl<T: Copy + Send + Sync> Tiles for PackedBlock<'_, T> {
    fn tiles(&self, task: Range<usize>, give: &mut dyn FnMut(TileRun<'_>)) {
        let Loops { lanes, columns, .. } = *self.loops;
        let mut sums = [0.0_f64; TILE_MAX];
        for panel in task.start / lanes..self.m.div_ceil(lanes) {
            let j = panel * lanes;
            let a = &self.in_lanes[panel * lanes * self.steps..][..lanes * self.steps];
            let last = (j + lanes).min(self.m);
            for i in task.clone().step_by(columns).take_while(|i| *i < last) {
                let b = &self.in_columns[i * self.steps..][..columns * self.steps];
                let runs = (i..(i + columns).min(task.end)).map(|i| (i, j.max(i)));
                for (i, from) in runs.clone().filter(|(_, from)| *from < last) {
                    give(TileRun::Soon(i, from, last - from));
                }
                self.sum(a, b, &mut sums);
                for ((i, from), sums) in runs.zip(sums.chunks_exact(lanes)) {
                    if from < last {
                        give(TileRun::Sums(i, from, &sums[from - j..last - j]));
                    }
                }
            }
        }
    }
}

impl<T> PackedBlock<'_, T> {
    /// One tile: f32 over at most [`SUM_ROWS`] rows, f64 over all.
    fn sum(&self, a: &[T], b: &[T], sums: &mut [f64; TILE_MAX]) {
        let Loops {
            lanes,
            columns,
            rows_per_step,
            multiply,
            kernel,
        } = *self.loops;
        let steps = SUM_ROWS / rows_per_step;
        let mut tile = [0.0; TILE_MAX];
        let sums = &mut sums[..lanes * columns];
        sums.fill(0.0);
        for (a, b) in a.chunks(steps * lanes).zip(b.chunks(steps * columns)) {
            multiply(a, b, &mut tile);
            kernel.add(&tile, sums);
        }
    }
}
