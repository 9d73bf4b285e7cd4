//! A few vectors times the columns of a large matrix: X^T B, X being depth x b with b a few dozen.
//!
//! The vectors are packed, so that the lanes of a tile run over them; B is read as it lies in memory, 8 columns side by
//! side, each element once for each 48 vectors. With B = E this is (E^T X)^T, with B = R (symmetric) (R X)^T, and with
//! B = E^T, by its columns, (E X)^T: skinny matrices are kept as b x n, one column for each row of the operand.
//!
//! Cost: 2 depth n b flops, b rounded up to whole vectors of the CPU.

use core::ops::Range;

use faer::prelude::ReborrowMut;
use faer::{Mat, MatMut, MatRef};

use super::Numbers;
use super::micro::{self, TILE_MAX, Tile};
use super::{Form, Host, Kernel, SUM_ROWS};
use crate::solve::narrow;

/// Rows of B, and of the packed vectors, that are multiplied before the next ones: what stays in cache.
const BLOCK_ROWS: usize = 1024;
/// Columns of B in a task.
const TASK_COLUMNS: usize = 96;

/// X^T B as b x n, for `x` = X^T (b x depth) and the n columns of B, `depth` numbers each.
#[must_use]
pub fn products(
    Host { kernel, cores }: Host<'_>,
    x: MatRef<'_, f64>,
    (columns, depth): (&[f32], usize),
) -> Mat<f64> {
    let (b, n) = (x.nrows(), columns.len() / depth);
    let groups = groups(kernel, b);
    let packed: Vec<Numbers<f32>> = groups.iter().map(|lanes| pack(x, lanes)).collect();
    let mut out = Mat::zeros(b, n);
    let mut pieces = Vec::new();
    let mut rest = out.as_mut();
    for columns in columns.chunks(depth * TASK_COLUMNS) {
        let (own, after) = rest.split_at_col_mut(columns.len() / depth);
        pieces.push((own, columns));
        rest = after;
    }
    cores.spread(pieces, |(mut out, columns): (MatMut<'_, f64>, &[f32])| {
        for first in (0..depth).step_by(BLOCK_ROWS) {
            let rows = first..(first + BLOCK_ROWS).min(depth);
            for (lanes, x) in groups.iter().zip(&packed) {
                let width = lanes.end - lanes.start;
                let x = &x[rows.start * width..rows.end * width];
                let operand = (columns, depth, rows.clone());
                group(kernel, (lanes, x), operand, out.as_mut());
            }
        }
    });
    out
}

/// Lanes that are multiplied together: whole vectors, as many as a tile holds; the last may be padded.
fn groups(kernel: Kernel, b: usize) -> Vec<Range<usize>> {
    let (vector, most) = match kernel.0 {
        Form::Portable => (kernel.vector(), kernel.vector()),
        #[cfg(target_arch = "x86_64")]
        _ => (kernel.vector(), kernel.tile().0),
    };
    (0..b)
        .step_by(most)
        .map(|first| first..(first + most).min(b.next_multiple_of(vector)))
        .collect()
}

fn pack(x: MatRef<'_, f64>, lanes: &Range<usize>) -> Numbers<f32> {
    let width = lanes.end - lanes.start;
    let held = lanes.end.min(x.nrows()) - lanes.start;
    let mut packed = Numbers::zeroed(width * x.ncols());
    for (column, packed) in x.col_iter().zip(packed.chunks_exact_mut(width)) {
        let values = column.subrows(lanes.start, held);
        for (to, from) in packed.iter_mut().zip(values.iter()) {
            *to = narrow(*from);
        }
    }
    packed
}

/// Adds the products of some rows to `out`, b numbers for each column of B.
fn group(
    kernel: Kernel,
    (lanes, x): (&Range<usize>, &[f32]),
    (columns, depth, rows): (&[f32], usize, Range<usize>),
    mut out: MatMut<'_, f64>,
) {
    let width = lanes.end - lanes.start;
    let held = lanes.end.min(out.nrows()) - lanes.start;
    let (_, wide) = kernel.tile();
    let mut tile = [0.0; TILE_MAX];
    // Pieces of nearly equal length, up to half as long again as they should be rather than one that is short.
    let pieces = ((rows.len() + SUM_ROWS / 2) / SUM_ROWS).max(1);
    let length = rows.len().div_ceil(pieces);
    for (group, columns) in columns.chunks(depth * wide).enumerate() {
        for (piece, x) in x.chunks(length * width).enumerate() {
            let first = rows.start + piece * length;
            let last = first + x.len() / width;
            multiply(kernel, x, width, (columns, depth, first..last), &mut tile);
            let sums = tile.chunks_exact(width).take(columns.len() / depth);
            for (c, sums) in sums.enumerate() {
                let column = out.rb_mut().col_mut(group * wide + c);
                let Some(column) = column.try_as_col_major_mut() else {
                    continue; // A matrix of faer's own lies by columns.
                };
                let to = &mut column.as_slice_mut()[lanes.start..lanes.start + held];
                kernel.add(sums, to);
            }
        }
    }
}

/// One tile. Where fewer columns are left than it has, the last one stands in for the others.
fn multiply(
    kernel: Kernel,
    x: &[f32],
    width: usize,
    (columns, depth, rows): (&[f32], usize, Range<usize>),
    tile: &mut Tile,
) {
    let count = columns.len() / depth;
    let column = |c: usize| &columns[c.min(count - 1) * depth..][rows.clone()];
    match kernel.0 {
        Form::Portable => micro::portable::columns(x, core::array::from_fn(column), tile),
        #[cfg(target_arch = "x86_64")]
        Form::Avx2 => {
            micro::avx2::columns(width / 8, x, core::array::from_fn(column), tile);
        }
        #[cfg(target_arch = "x86_64")]
        Form::Avx512 | Form::Avx512Bf16 => {
            micro::avx512::columns(width / 16, x, core::array::from_fn(column), tile);
        }
    }
}
