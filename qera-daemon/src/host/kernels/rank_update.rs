//! X^T X of a block of rows, tile by tile: folded into a packed triangle while it is in cache
//! ([`fold_products`]), or multiplied with one and summed ([`trace_products`]).
//!
//! The triangle's rows are cut into tasks of [`TASK_CHANNELS`]: a task's `columns` panels
//! (`packed_block`) stay in the second-level cache while it goes through the `lanes` panels from
//! its diagonal to the right, and its rows of the triangle are one contiguous, disjoint piece of
//! memory, which is what makes the tasks safe to spread over cores.
//!
//! Cost: m (m + 1) flops a row, and one pass over the triangle for each block. The blocking is that
//! of Goto and van de Geijn, ACM TOMS 34 (2008) 12.

use core::ops::Range;

use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_offset;
use qera_core::statistics::BlockShare;

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::micro::amx::NumberParts;
#[cfg(target_arch = "x86_64")]
use crate::host::kernels::pack::pack_pairs;
use crate::host::kernels::pack::{pack_numbers, pack_weighted};
use crate::host::kernels::packed_block::{
    BLOCK_DEPTH, Multiply, Packing, PanelShape, TileRun, Tiles, VectorBlock, regroup,
};
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::stored::StoredRows;
use crate::host::kernels::tile_block::{
    TileBlock, TileProduct, pack_split, pack_whole, regroup_tiles,
};
use crate::host::kernels::{Kernel, PairProducts, Vectors, micro};

/// Rows of the triangle in a task.
const TASK_CHANNELS: usize = 96;

/// Memory for packed rows, used again from block to block.
#[derive(Debug, Default)]
pub struct Scratch {
    numbers: PageVec<f32>,
    pairs: PageVec<u32>,
}

/// Bytes of a [`Scratch`] after so many rows of this width and type; rows with weights are packed
/// as f32 ones.
#[must_use]
pub(crate) fn scratch_bytes(
    kernel: Kernel,
    in_features: usize,
    rows: usize,
    dtype: FloatDtype,
) -> usize {
    PanelShape::of(kernel, dtype).most_numbers(in_features, rows) * size_of::<f32>()
}

/// Bytes that [`trace_products`] packs of a matrix with so many rows and columns.
#[must_use]
pub(crate) fn trace_bytes(rows: usize, columns: usize) -> usize {
    // Panels of lanes and panels of columns, padded to the widest tile.
    let channels = 2 * rows + micro::LANES_MAX + micro::COLUMNS;
    channels * columns.min(BLOCK_DEPTH) * size_of::<f32>()
}

/// Folds X^T X of the rows into the means `packed` (upper triangle by rows). `begin` is asked once
/// for each block, with its number of rows, how the block changes a mean. Of rows with weights it
/// is X^T W X in units of `row_weights`.
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

/// Packs the rows block by block, as the kernel multiplies them, and gives each with its number of
/// rows.
fn in_blocks(
    compute: Compute<'_>,
    rows: StoredRows<'_>,
    scratch: &mut Scratch,
    with: impl FnMut(&dyn Tiles, usize),
) {
    let kernel = compute.kernel;
    let dtype = multiplied_as(kernel, rows);
    let shape = PanelShape::of(kernel, dtype);
    match kernel.pairs.filter(|_| kernel.multiplies_in_bf16(dtype)) {
        None => in_numbers(compute, rows, shape, &mut scratch.numbers, with),
        #[cfg(target_arch = "x86_64")]
        Some(PairProducts::Avx512Bf16) => in_pairs(compute, rows, shape, &mut scratch.pairs, with),
        Some(PairProducts::Amx(unit)) => {
            let parts = NumberParts::of(dtype);
            let product = TileProduct { shape, unit, parts };
            in_tiles(compute, rows, product, &mut scratch.pairs, with);
        }
    }
}

/// Blocks of f32 numbers.
fn in_numbers(
    Compute { kernel, cores, .. }: Compute<'_>,
    rows: StoredRows<'_>,
    shape: PanelShape,
    scratch: &mut PageVec<f32>,
    mut with: impl FnMut(&dyn Tiles, usize),
) {
    let multiply: Multiply<f32> = match kernel.vectors {
        Vectors::Portable => micro::portable::packed,
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2 => micro::avx2::packed,
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx512 => micro::avx512::packed,
        #[cfg(target_arch = "aarch64")]
        Vectors::Neon => micro::neon::packed,
    };
    let packing = Packing {
        shape,
        pack: match rows.weights {
            Some(_) => pack_weighted,
            None => pack_numbers,
        },
        regroup,
    };
    packing.blocks(cores, rows, scratch, |packed, count| {
        let block = VectorBlock {
            packed,
            kernel,
            multiply,
        };
        with(&block, count);
    });
}

/// Blocks of pairs of bf16 numbers, for vectors.
#[cfg(target_arch = "x86_64")]
fn in_pairs(
    Compute { kernel, cores, .. }: Compute<'_>,
    rows: StoredRows<'_>,
    shape: PanelShape,
    scratch: &mut PageVec<u32>,
    mut with: impl FnMut(&dyn Tiles, usize),
) {
    let packing = Packing {
        shape,
        pack: pack_pairs,
        regroup,
    };
    packing.blocks(cores, rows, scratch, |packed, count| {
        let block = VectorBlock {
            packed,
            kernel,
            multiply: micro::avx512::pairs,
        };
        with(&block, count);
    });
}

/// Blocks of pairs of bf16 numbers, or of parts of numbers, for AMX.
fn in_tiles(
    Compute { kernel, cores, .. }: Compute<'_>,
    rows: StoredRows<'_>,
    product: TileProduct,
    scratch: &mut PageVec<u32>,
    mut with: impl FnMut(&dyn Tiles, usize),
) {
    let packing = Packing {
        shape: product.shape,
        pack: match product.parts {
            NumberParts::One => pack_whole,
            NumberParts::Two => pack_split,
        },
        regroup: regroup_tiles,
    };
    packing.blocks(cores, rows, scratch, |packed, count| {
        let block = TileBlock {
            packed,
            kernel,
            product,
        };
        with(&block, count);
    });
}

/// The type as which a kernel multiplies rows: their own, that of numbers which were decoded, or
/// f32 where there are weights.
fn multiplied_as(kernel: Kernel, rows: StoredRows<'_>) -> FloatDtype {
    if rows.weights.is_some() || kernel.pairs.is_none() {
        return FloatDtype::F32;
    }
    let narrow = [FloatDtype::Bf16, FloatDtype::F16].into_iter();
    narrow
        .filter(|dtype| kernel.multiplies_in_bf16(*dtype))
        .find(|dtype| rows.are(*dtype))
        .unwrap_or(FloatDtype::F32)
}
