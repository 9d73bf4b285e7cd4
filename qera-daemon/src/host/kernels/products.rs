//! A few vectors times the columns of a large matrix: X^T B, X being depth x b with b a few dozen.
//!
//! The vectors are packed, so that the lanes of a tile run over them; B is read as it lies in
//! memory, 8 columns side by side, each element once for each tile of vectors. With B = E this is
//! (E^T X)^T, with B = R (symmetric) (R X)^T, and with B = E^T, by its columns, (E X)^T: skinny
//! matrices are kept as b x n, one column for each row of the operand.
//!
//! In f32, or with the vectors and all sums in f64, B being f32 in either case. Cost: 2 depth n b
//! flops, b rounded up to whole vectors of the CPU; f64 has at most half of f32's rate.

use core::array::from_fn;
use core::ops::Range;

use bytemuck::Pod;
use faer::prelude::ReborrowMut;
use faer::{Mat, MatMut, MatRef};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::micro::TILE_MAX;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::{Kernel, SUM_ROWS, Vectors, micro};
use crate::host::rounding::narrow;

/// Rows of B, and of the packed vectors, that are multiplied before the next ones: what stays in
/// cache.
const BLOCK_ROWS: usize = 1024;
/// Columns of B in a task.
const TASK_COLUMNS: usize = 96;

/// A column of B.
type Column<'b> = &'b [f32];

/// The type in which vectors are packed and tiles are summed.
pub(crate) trait Sum: Pod + Send + Sync {
    /// Lanes of a vector of the CPU.
    fn lanes(kernel: Kernel) -> usize;

    fn rounded(value: f64) -> Self;

    /// The sums of vectors that are packed `width` wide, and columns.
    fn tile<'b>(
        kernel: Kernel,
        x: &[Self],
        width: usize,
        column: impl Fn(usize) -> Column<'b>,
        tile: &mut [Self; TILE_MAX],
    );

    /// Adds a tile's sums to others.
    fn add(kernel: Kernel, tile: &[Self], sums: &mut [f64]);
}

impl Sum for f32 {
    fn lanes(kernel: Kernel) -> usize {
        kernel.vector()
    }

    fn rounded(value: f64) -> Self {
        narrow(value)
    }

    fn tile<'b>(
        kernel: Kernel,
        x: &[Self],
        width: usize,
        column: impl Fn(usize) -> Column<'b>,
        tile: &mut [Self; TILE_MAX],
    ) {
        match kernel.vectors {
            Vectors::Portable => micro::portable::columns(x, from_fn(column), tile),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => micro::avx2::columns(width / 8, x, from_fn(column), tile),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => {
                micro::avx512::columns(width / 16, x, from_fn(column), tile);
            }
            #[cfg(target_arch = "aarch64")]
            Vectors::Neon => micro::neon::columns(width / 4, x, from_fn(column), tile),
        }
    }

    fn add(kernel: Kernel, tile: &[Self], sums: &mut [f64]) {
        kernel.add(tile, sums);
    }
}

impl Sum for f64 {
    fn lanes(kernel: Kernel) -> usize {
        match kernel.vectors {
            Vectors::Portable => kernel.vector(),
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            _ => kernel.vector() / 2,
        }
    }

    fn rounded(value: f64) -> Self {
        value
    }

    fn tile<'b>(
        kernel: Kernel,
        x: &[Self],
        width: usize,
        column: impl Fn(usize) -> Column<'b>,
        tile: &mut [Self; TILE_MAX],
    ) {
        match kernel.vectors {
            Vectors::Portable => micro::portable::columns_f64(x, from_fn(column), tile),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx2 => micro::avx2::columns_f64(width / 4, x, from_fn(column), tile),
            #[cfg(target_arch = "x86_64")]
            Vectors::Avx512 => {
                micro::avx512::columns_f64(width / 8, x, from_fn(column), tile);
            }
            #[cfg(target_arch = "aarch64")]
            Vectors::Neon => micro::neon::columns_f64(width / 2, x, from_fn(column), tile),
        }
    }

    fn add(_: Kernel, tile: &[Self], sums: &mut [f64]) {
        sums.iter_mut().zip(tile).for_each(|(sum, x)| *sum += x);
    }
}

/// X^T B as b x n, for `x` = X^T (b x depth), in f32 or f64, and the n columns of B.
#[must_use]
pub(crate) fn products<T: Sum, X: Copy + Into<f64>>(
    Compute { kernel, cores, .. }: Compute<'_>,
    x: MatRef<'_, X>,
    columns: ColumnMajor<'_>,
) -> Mat<f64> {
    let (b, depth) = (x.nrows(), columns.rows);
    let vectors: Vec<Packed<T>> = groups::<T>(kernel, b)
        .into_iter()
        .map(|lanes| Packed::new(x, lanes))
        .collect();
    let mut out = Mat::zeros(b, columns.columns());
    let mut pieces = Vec::new();
    let mut rest = out.as_mut();
    for values in columns.values.chunks(depth * TASK_COLUMNS) {
        let columns = ColumnMajor::new(values, depth);
        let (own, after) = rest.split_at_col_mut(columns.columns());
        pieces.push((own, columns));
        rest = after;
    }
    cores.spread(
        pieces,
        |(mut out, columns): (MatMut<'_, f64>, ColumnMajor<'_>)| {
            for first in (0..depth).step_by(BLOCK_ROWS) {
                let rows = first..(first + BLOCK_ROWS).min(depth);
                for packed in &vectors {
                    group(kernel, packed, columns, rows.clone(), out.as_mut());
                }
            }
        },
    );
    out
}

/// Some of the vectors, packed for the lanes of a tile.
struct Packed<T> {
    /// The vectors of the tile. The last one may be missing.
    lanes: Range<usize>,
    numbers: PageVec<T>,
}

impl<T: Sum> Packed<T> {
    fn new<X: Copy + Into<f64>>(x: MatRef<'_, X>, lanes: Range<usize>) -> Self {
        let width = lanes.end - lanes.start;
        let held = lanes.end.min(x.nrows()) - lanes.start;
        let mut numbers = PageVec::zeroed(width * x.ncols());
        for (column, packed) in x.col_iter().zip(numbers.chunks_exact_mut(width)) {
            let values = column.subrows(lanes.start, held);
            for (to, from) in packed.iter_mut().zip(values.iter()) {
                *to = T::rounded((*from).into());
            }
        }
        Self { lanes, numbers }
    }

    const fn width(&self) -> usize {
        self.lanes.end - self.lanes.start
    }
}

/// Lanes that are multiplied together: whole vectors, as many as a tile holds, or nearly so; the
/// last may be padded.
fn groups<T: Sum>(kernel: Kernel, b: usize) -> Vec<Range<usize>> {
    let lanes = T::lanes(kernel);
    let most = kernel.tile().lanes / kernel.vector();
    let vectors = b.div_ceil(lanes);
    let groups = vectors.div_ceil(most);
    (0..groups)
        .map(|g| lanes * (g * vectors / groups)..lanes * ((g + 1) * vectors / groups))
        .collect()
}

/// Adds the products of some rows to `out`, b numbers for each column of B.
fn group<T: Sum>(
    kernel: Kernel,
    packed: &Packed<T>,
    columns: ColumnMajor<'_>,
    rows: Range<usize>,
    mut out: MatMut<'_, f64>,
) {
    let (lanes, width, depth) = (&packed.lanes, packed.width(), columns.rows);
    let x = &packed.numbers[rows.start * width..rows.end * width];
    let held = lanes.end.min(out.nrows()) - lanes.start;
    let wide = kernel.tile().columns;
    let mut tile = [T::zeroed(); TILE_MAX];
    // Pieces of nearly equal length, up to half as long again as they should be rather than one
    // that is short.
    let pieces = ((rows.len() + SUM_ROWS / 2) / SUM_ROWS).max(1);
    let length = rows.len().div_ceil(pieces);
    for (group, columns) in columns.values.chunks(depth * wide).enumerate() {
        // Where fewer columns are left than a tile has, the last column takes the places of the
        // missing ones.
        let count = columns.len() / depth;
        for (piece, x) in x.chunks(length * width).enumerate() {
            let first = rows.start + piece * length;
            let rows = first..first + x.len() / width;
            let column = |c: usize| &columns[c.min(count - 1) * depth..][rows.clone()];
            T::tile(kernel, x, width, column, &mut tile);
            for (c, sums) in tile.chunks_exact(width).take(count).enumerate() {
                let column = out.rb_mut().col_mut(group * wide + c);
                let Some(column) = column.try_as_col_major_mut() else {
                    continue; // A matrix of faer's own lies by columns.
                };
                let to = &mut column.as_slice_mut()[lanes.start..lanes.start + held];
                T::add(kernel, sums, to);
            }
        }
    }
}
