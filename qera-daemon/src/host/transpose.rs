//! Transposes: of skinny f64 matrices, and of the large f32 one that E is.

use faer::{Mat, MatRef};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;

/// Side of the squares in which a large matrix is transposed.
const SQUARE: usize = 32;

/// The transpose, a few columns at a time so that both sides stay in cache.
pub(crate) fn transposed(x: MatRef<'_, f64>) -> Mat<f64> {
    const COLUMNS: usize = 16;
    let mut transposed = Mat::zeros(x.ncols(), x.nrows());
    for first in (0..x.ncols()).step_by(COLUMNS) {
        let count = COLUMNS.min(x.ncols() - first);
        let columns: Vec<&[f64]> = (first..first + count).map(|j| slice(x, j)).collect();
        for (i, to) in transposed.col_iter_mut().enumerate() {
            let to = to.try_as_col_major_mut().map(|to| to.as_slice_mut());
            let to = to.unwrap_or_default();
            for (to, column) in to[first..first + count].iter_mut().zip(&columns) {
                *to = column[i];
            }
        }
    }
    transposed
}

/// A column of a matrix that lies by columns, as all matrices here do.
fn slice(x: MatRef<'_, f64>, j: usize) -> &[f64] {
    let column = x.col(j).try_as_col_major();
    column.map(|column| column.as_slice()).unwrap_or_default()
}

/// The transpose of a matrix, each number multiplied by `scale`. It goes by squares, because whole
/// columns of both matrices would evict each other from the cache where their distance is a power
/// of two.
pub(crate) fn scaled_transpose(
    compute: Compute<'_>,
    matrix: ColumnMajor<'_>,
    scale: f32,
) -> PageVec<f32> {
    let (rows, columns) = (matrix.rows, matrix.columns());
    let matrix = matrix.values;
    let mut transposed = PageVec::unwritten(matrix.len());
    let strips = transposed
        .chunks_mut(columns * SQUARE)
        .enumerate()
        .collect();
    compute
        .cores
        .spread(strips, |(strip, transposed): (_, &mut [f32])| {
            let first = strip * SQUARE;
            let height = transposed.len() / columns;
            let mut square = [[0.0_f32; SQUARE]; SQUARE];
            for left in (0..columns).step_by(SQUARE) {
                let width = SQUARE.min(columns - left);
                for (j, column) in (left..left + width).zip(&mut square) {
                    column[..height].copy_from_slice(&matrix[j * rows + first..][..height]);
                }
                for (r, row) in transposed.chunks_exact_mut(columns).enumerate() {
                    for (to, column) in row[left..left + width].iter_mut().zip(&square) {
                        *to = column[r] * scale;
                    }
                }
            }
        });
    transposed
}
