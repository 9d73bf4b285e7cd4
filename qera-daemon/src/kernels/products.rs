//! A few vectors times the columns of a large matrix: X^T B, X being depth x b with b a few dozen.
//!
//! The vectors are packed, so that the lanes of a tile run over them; B is read as it lies in memory, 8 columns side by
//! side, each element once for each 48 vectors. With B = E this is (E^T X)^T, with B = R (symmetric) (R X)^T, and with
//! B = E^T, by its columns, (E X)^T: skinny matrices are kept as b x n, one column for each row of the operand.
//!
//! Cost: 2 depth n b flops, b rounded up to whole vectors of the CPU.

use core::ops::Range;

use faer::{Mat, MatRef};

use super::aligned::Aligned;
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
    let packed: Vec<Aligned<f32>> = groups.iter().map(|lanes| pack(x, lanes)).collect();
    let mut out = vec![0.0; b * n];
    let pieces = out
        .chunks_mut((b * TASK_COLUMNS).max(1))
        .zip(columns.chunks(depth * TASK_COLUMNS))
        .collect();
    cores.spread(pieces, |(out, columns): (&mut [f64], &[f32])| {
        for first in (0..depth).step_by(BLOCK_ROWS) {
            let rows = first..(first + BLOCK_ROWS).min(depth);
            for (lanes, x) in groups.iter().zip(&packed) {
                let width = lanes.end - lanes.start;
                let x = &x.all()[rows.start * width..rows.end * width];
                let operand = (columns, depth, rows.clone());
                group(kernel, (lanes, x), operand, out, b);
            }
        }
    });
    MatRef::from_column_major_slice(&out, b, n).to_owned()
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

fn pack(x: MatRef<'_, f64>, lanes: &Range<usize>) -> Aligned<f32> {
    let width = lanes.end - lanes.start;
    let held = lanes.end.min(x.nrows()) - lanes.start;
    let mut packed = Aligned::default();
    let steps = packed.lend(width * x.ncols()).chunks_exact_mut(width);
    for (column, packed) in x.col_iter().zip(steps) {
        let values = column.subrows(lanes.start, held);
        for (to, from) in packed.iter_mut().zip(values.iter()) {
            *to = narrow(*from);
        }
    }
    packed
}

/// Adds the products of some rows to `out` (b numbers a column of B).
fn group(
    kernel: Kernel,
    (lanes, x): (&Range<usize>, &[f32]),
    (columns, depth, rows): (&[f32], usize, Range<usize>),
    out: &mut [f64],
    b: usize,
) {
    let width = lanes.end - lanes.start;
    let held = lanes.end.min(b) - lanes.start;
    let (_, wide) = kernel.tile();
    let mut tile = [0.0; TILE_MAX];
    let columns = columns.chunks(depth * wide);
    for (columns, out) in columns.zip(out.chunks_mut(b * wide)) {
        for (piece, x) in x.chunks(SUM_ROWS * width).enumerate() {
            let first = rows.start + piece * SUM_ROWS;
            let last = first + x.len() / width;
            multiply(kernel, x, width, (columns, depth, first..last), &mut tile);
            for (out, sums) in out.chunks_exact_mut(b).zip(tile.chunks_exact(width)) {
                let out = out[lanes.start..].iter_mut().take(held);
                out.zip(sums).for_each(|(out, sum)| *out += f64::from(*sum));
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
