//! One shrink: the kept rows and a block below them are reduced to as many rows as were kept.
//!
//! With Y the stack, each row times the root of its share, Y Y^T = U diag(lambda) U^T gives the
//! singular values and left vectors of Y; the new rows are sqrt(1 - delta / lambda_i) u_i^T Y. The
//! shares are multiplied into the small matrices, so that no row of the stack is touched before
//! the last product, which goes column by column: the new numbers of a column replace the old ones.

use nalgebra::DMatrixViewMut;

use super::refusal::SketchError;
use crate::linalg::{JACOBI_MAX_SWEEPS, Workspace, dot, jacobi_eigen, jacobi_eigen_workspace_len};

/// The rows that are stacked below the kept ones, and each row's share of the whole weight.
#[derive(Debug)]
pub(super) struct Stack<'a, W> {
    /// The share of each kept row.
    pub(super) kept_share: f64,
    /// The rows below, row-major.
    pub(super) below: &'a [f32],
    /// The share of each row below.
    pub(super) below_shares: W,
}

/// What a shrink took away, and the trace of the block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shrunk {
    /// The amount taken from every direction.
    pub(super) delta: f64,
    /// The sum of the squares of the rows below, each by its share.
    pub(super) trace_below: f64,
}

/// Number of `f64` that a shrink of `kept` rows and a block of `block` more needs: 2 r^2 + 4 r with
/// r = kept + block, and `usize::MAX` where that overflows.
///
/// ```
/// assert_eq!(qera_core::statistics::error_sketch_workspace_len(15, 16), 2 * 31 * 31 + 4 * 31);
/// ```
#[must_use]
pub const fn error_sketch_workspace_len(kept: usize, block: usize) -> usize {
    let r = kept.saturating_add(block);
    r.saturating_mul(r)
        .saturating_mul(2)
        .saturating_add(r.saturating_mul(2))
        .saturating_add(jacobi_eigen_workspace_len(r))
}

/// Shrinks the stack into `rows`, which is left as it was when that fails.
pub(super) fn shrink(
    rows: &mut [f32],
    width: usize,
    stack: Stack<'_, impl Iterator<Item = f64>>,
    workspace: &mut [f64],
) -> Result<Shrunk, SketchError> {
    let kept = rows.len() / width;
    let block = stack.below.len() / width;
    let r = kept + block;
    let mut workspace = Workspace::new(workspace, error_sketch_workspace_len(kept, block))
        .map_err(|short| SketchError::Room {
            needed: short.needed,
            lent: short.lent,
        })?;
    let gram = workspace.take(r * r);
    let coefficients = workspace.take(r * r);
    let (values, scales) = (workspace.take(r), workspace.take(r));
    let jacobi = workspace.take(jacobi_eigen_workspace_len(r));

    let shares = core::iter::repeat_n(stack.kept_share, kept).chain(stack.below_shares);
    for (scale, share) in scales.iter_mut().zip(shares) {
        *scale = libm::sqrt(share);
    }
    write_gram(rows, stack.below, width, scales, gram);
    let trace_below = (kept..r).map(|i| gram[i * r + i]).sum();
    jacobi_eigen(
        DMatrixViewMut::from_slice(gram, r, r),
        values,
        DMatrixViewMut::from_slice(coefficients, r, r),
        jacobi,
        JACOBI_MAX_SWEEPS,
    )
    .map_err(SketchError::Shrink)?;

    let noise = r as f64 * f64::EPSILON * values[0].max(0.0);
    // A stack of no more rows, or directions, than are kept loses nothing.
    let first_lost = values.get(kept).copied().unwrap_or(0.0);
    let delta = if first_lost > noise { first_lost } else { 0.0 };
    let pairs = values.iter().zip(coefficients.chunks_exact_mut(r));
    for (&value, coefficients) in pairs.take(kept) {
        let left = if value > noise { value - delta } else { 0.0 };
        let scale = if left > 0.0 {
            libm::sqrt(left / value)
        } else {
            0.0
        };
        for (coefficient, row_scale) in coefficients.iter_mut().zip(&*scales) {
            *coefficient *= scale * row_scale;
        }
    }
    // What the eigenvectors destroyed holds a column of the stack.
    write_rows(rows, stack.below, width, coefficients, &mut gram[..r]);
    Ok(Shrunk { delta, trace_below })
}

/// The lower triangle of Y Y^T, column-major.
fn write_gram(rows: &[f32], below: &[f32], width: usize, scales: &[f64], gram: &mut [f64]) {
    let r = scales.len();
    let stacked = || rows.chunks_exact(width).chain(below.chunks_exact(width));
    for (j, y) in stacked().enumerate() {
        for (i, z) in stacked().enumerate().skip(j) {
            gram[j * r + i] = scales[i] * scales[j] * wide_dot(y, z);
        }
    }
}

/// Rows <- coefficients^T Y, a column of Y at a time.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the purpose"
)]
fn write_rows(
    rows: &mut [f32],
    below: &[f32],
    width: usize,
    coefficients: &[f64],
    column: &mut [f64],
) {
    let r = column.len();
    for at in 0..width {
        let stacked = rows.chunks_exact(width).chain(below.chunks_exact(width));
        for (to, row) in column.iter_mut().zip(stacked) {
            *to = f64::from(row[at]);
        }
        let kept = rows.chunks_exact_mut(width);
        for (row, coefficients) in kept.zip(coefficients.chunks_exact(r)) {
            row[at] = dot(coefficients, column) as f32;
        }
    }
}

/// Returns x^T y in f64, where the product of two f32 is exact.
fn wide_dot(x: &[f32], y: &[f32]) -> f64 {
    const LANES: usize = 8;
    let (x_lanes, x_tail) = x.as_chunks::<LANES>();
    let (y_lanes, y_tail) = y.as_chunks::<LANES>();
    let mut sums = [0.0_f64; LANES];
    for (x, y) in x_lanes.iter().zip(y_lanes) {
        for lane in 0..LANES {
            sums[lane] += f64::from(x[lane]) * f64::from(y[lane]);
        }
    }
    for (sum, (x, y)) in sums.iter_mut().zip(x_tail.iter().zip(y_tail)) {
        *sum += f64::from(*x) * f64::from(*y);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows kept of four: sqrt(9 - 1), sqrt(4 - 1), whatever the signs.
    #[test]
    fn a_shrink_takes_the_same_of_every_direction() {
        let mut rows = [3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let below = [0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
        let mut workspace = [0.0; error_sketch_workspace_len(2, 2)];
        let stack = Stack {
            kept_share: 1.0,
            below: &below,
            below_shares: [1.0, 1.0].into_iter(),
        };
        let shrunk = shrink(&mut rows, 4, stack, &mut workspace).unwrap();
        assert!((shrunk.delta - 1.0).abs() < 1e-15);
        assert!((shrunk.trace_below - 5.0).abs() < 1e-15);
        let expected = [8.0_f32.sqrt(), 3.0_f32.sqrt()];
        for (row, expected) in rows.chunks_exact(4).zip(expected) {
            let length: f32 = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length - expected).abs() < 1e-6, "{rows:?}");
        }
        assert!(rows[0].abs() > 2.8 && rows[5].abs() > 1.7, "{rows:?}");
    }
}
