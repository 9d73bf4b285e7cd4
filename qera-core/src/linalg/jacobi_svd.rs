//! Singular value decomposition by one-sided Jacobi rotations (Hestenes).
//!
//! **Derivation.** Rotating columns `p` and `q` of `A` by the angle that makes `A^T A` zero at `(p,
//! q)` makes these columns orthogonal. When all pairs are orthogonal, `A V = U S`: the column norms
//! are the singular values, the normalised columns are `U`, and the product of the rotations is
//! `V`. `A^T A` is never formed, so nothing is squared away: each rotation is orthogonal to the
//! last bit and the column norms are kept relative to themselves.
//!
//! The larger column of what is left is moved to the front before each row of pairs (de Rijk 1989);
//! with graded columns this needs fewer sweeps and rotates large columns by small angles only. A
//! pair counts as orthogonal when `|a_p^T a_q| <= sqrt(rows) eps |a_p| |a_q|`, LAPACK `dgesvj`'s
//! test.
//!
//! **Cost.** `(2 + 6) rows + 6 cols` flops for each of `cols^2 / 2` pairs a sweep, plus two norms
//! for each rotation; 5 to 10 sweeps.
//!
//! **Error bound.** If `A = B D` with `D` diagonal, every singular value has a relative error of at
//! most a modest multiple of `cols eps cond(B)` (Demmel and Veselic 1992, theorem 2.14): bad column
//! scaling costs no accuracy, where bidiagonalisation loses everything below `eps ||A||`.

use core::fmt;

use nalgebra::DMatrixViewMut;

use super::columns::{
    NonFinite, Part, dot, largest_from, largest_magnitude, power_of_two_scale, squared_norm,
};
use super::lent::{
    ShapeMismatch, Workspace, WorkspaceTooSmall, expect_length, expect_matrix, from_lent,
};
use super::rotation::Rotation;

/// Why [`jacobi_svd`] gave no decomposition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JacobiSvdError {
    /// Fewer rows than columns: decompose the transpose, `A^T = V S U^T`, instead.
    Wide {
        /// Rows lent.
        rows: usize,
        /// Columns lent.
        columns: usize,
    },
    /// `sigma` or `v` do not fit the matrix.
    Shape(ShapeMismatch),
    /// The workspace is too short.
    Workspace(WorkspaceTooSmall),
    /// An element is NaN or infinite.
    NonFinite {
        /// Row of the element.
        row: usize,
        /// Column of the element.
        column: usize,
    },
    /// Some columns are still not orthogonal after the last sweep.
    NoConvergence {
        /// Sweeps made.
        sweeps: usize,
        /// Largest cosine between two columns in the last sweep.
        residual: f64,
    },
}

impl fmt::Display for JacobiSvdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wide { rows, columns } => write!(
                f,
                "a {rows} x {columns} matrix has fewer rows than columns: decompose its transpose"
            ),
            Self::Shape(shape) => shape.fmt(f),
            Self::Workspace(workspace) => workspace.fmt(f),
            Self::NonFinite { row, column } => {
                write!(f, "element ({row}, {column}) is not finite")
            }
            Self::NoConvergence { sweeps, residual } => write!(
                f,
                "columns with cosine {residual:e} left after {sweeps} Jacobi sweeps"
            ),
        }
    }
}

impl core::error::Error for JacobiSvdError {}

from_lent!(JacobiSvdError);

/// What [`jacobi_svd`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JacobiSvdReport {
    /// Sweeps made, the last one without a rotation.
    pub sweeps: usize,
    /// Largest cosine between two columns in the last sweep.
    pub residual: f64,
    /// Number of singular values that are not exactly zero. A rank at a tolerance is the caller's
    /// to choose.
    pub nonzero: usize,
}

/// Number of `f64` that [`jacobi_svd`] needs for a matrix of `columns` columns: one squared norm
/// each.
pub const fn jacobi_svd_workspace_len(columns: usize) -> usize {
    columns
}

/// Decomposes `A = U diag(sigma) V^T`, singular values in descending order, in place.
///
/// # Shapes
/// | argument | shape | |
/// |---|---|---|
/// | `a` | rows x cols, rows >= cols | in: `A`; out: `U` |
/// | `sigma` | cols | singular values, descending, >= 0 |
/// | `v` | cols x cols | orthogonal |
///
/// A wide matrix is refused: lend its transpose, whose `U` and `V` are `V` and `U` of the original.
///
/// # Workspace
/// [`jacobi_svd_workspace_len`]`(cols)` = cols.
///
/// # Errors
/// [`Wide`](JacobiSvdError::Wide), [`Shape`](JacobiSvdError::Shape),
/// [`Workspace`](JacobiSvdError::Workspace) and [`NonFinite`](JacobiSvdError::NonFinite) are found
/// before anything is written. After [`NoConvergence`](JacobiSvdError::NoConvergence) the outputs
/// hold the last iterate.
///
/// # Numerics
/// High relative accuracy, see [the module](self). Rank-deficient input is fine: a column of `U`
/// whose singular value is exactly zero is exactly zero too (nothing is invented), the others are
/// orthonormal to `sqrt(rows) cols eps`. Signs, and the basis of a multiple singular value, are
/// free.
///
/// # Determinism
/// The order of pairs depends on the data only.
///
/// # References
/// Hestenes, J. SIAM 6 (1958); de Rijk, SIAM J. Sci. Stat. Comput. 10 (1989); Demmel and Veselic,
/// SIAM J. Matrix Anal. Appl. 13 (1992). It is the SVD of equations (12) and (24) of the QERA
/// paper.
///
/// # Example
/// ```
/// use nalgebra::DMatrixViewMut;
/// use qera_core::linalg::{
///     JACOBI_MAX_SWEEPS, JacobiSvdError, JacobiSvdReport, Shape, ShapeMismatch, jacobi_svd,
///     jacobi_svd_workspace_len,
/// };
///
/// // Columns (3, 4, 0) and (0, 0, 2).
/// let mut a = [3.0, 4.0, 0.0, 0.0, 0.0, 2.0];
/// let (mut sigma, mut v) = ([0.0; 2], [0.0; 4]);
/// let mut workspace = [0.0; jacobi_svd_workspace_len(2)];
/// let mut decompose = |sigma: &mut [f64]| {
///     let a = DMatrixViewMut::from_slice(&mut a, 3, 2);
///     let v = DMatrixViewMut::from_slice(&mut v, 2, 2);
///     jacobi_svd(a, sigma, v, &mut workspace, JACOBI_MAX_SWEEPS)
/// };
/// let JacobiSvdReport { nonzero, .. } = decompose(&mut sigma)?;
/// assert_eq!((sigma, nonzero), ([5.0, 2.0], 2));
///
/// let [expected, got] = [2, 3].map(|rows| Shape { rows, columns: 1 });
/// let mismatch = ShapeMismatch { operand: "sigma", expected, got };
/// assert_eq!(decompose(&mut [0.0; 3]), Err(JacobiSvdError::Shape(mismatch)));
/// # Ok::<(), qera_core::linalg::JacobiSvdError>(())
/// ```
pub fn jacobi_svd(
    mut a: DMatrixViewMut<'_, f64>,
    sigma: &mut [f64],
    mut v: DMatrixViewMut<'_, f64>,
    workspace: &mut [f64],
    max_sweeps: usize,
) -> Result<JacobiSvdReport, JacobiSvdError> {
    let (rows, columns) = a.shape();
    if rows < columns {
        return Err(JacobiSvdError::Wide { rows, columns });
    }
    expect_length("sigma", sigma, columns)?;
    expect_matrix("v", &v, columns, columns)?;
    let squares = Workspace::new(workspace, jacobi_svd_workspace_len(columns))?.take(columns);

    let largest = largest_magnitude(&a, Part::Whole)
        .map_err(|NonFinite { row, column }| JacobiSvdError::NonFinite { row, column })?;
    let scale = power_of_two_scale(largest);
    for mut column in a.column_iter_mut() {
        column.as_mut_slice().iter_mut().for_each(|x| *x *= scale);
    }
    v.fill_with_identity();

    let tolerance = libm::sqrt(rows as f64) * f64::EPSILON;
    let mut report = JacobiSvdReport {
        sweeps: 0,
        residual: 0.0,
        nonzero: 0,
    };
    let converged = loop {
        if report.sweeps == max_sweeps {
            break false;
        }
        report.sweeps += 1;
        for (square, column) in squares.iter_mut().zip(a.column_iter()) {
            *square = squared_norm(column.as_slice());
        }
        report.residual = sweep(&mut a, &mut v, squares, tolerance);
        if report.residual <= tolerance {
            break true;
        }
    };

    sort_descending(&mut a, &mut v, squares);
    for (j, mut column) in a.column_iter_mut().enumerate() {
        let column = column.as_mut_slice();
        let norm = libm::sqrt(squared_norm(column));
        sigma[j] = norm / scale;
        if norm > 0.0 {
            report.nonzero += 1;
            column.iter_mut().for_each(|x| *x /= norm);
        } else {
            // A norm that underflows is zero: so is its column.
            column.fill(0.0);
        }
    }
    if converged {
        Ok(report)
    } else {
        Err(JacobiSvdError::NoConvergence {
            sweeps: report.sweeps,
            residual: report.residual,
        })
    }
}

/// Visits every pair once and returns the largest cosine met, 0 when every pair was orthogonal
/// within the tolerance already. `squares` holds the squared column norms.
fn sweep(
    a: &mut DMatrixViewMut<'_, f64>,
    v: &mut DMatrixViewMut<'_, f64>,
    squares: &mut [f64],
    tolerance: f64,
) -> f64 {
    let columns = squares.len();
    let mut largest_cosine = 0.0_f64;
    for p in 0..columns {
        let pivot = largest_from(squares, p);
        squares.swap(p, pivot);
        a.swap_columns(p, pivot);
        v.swap_columns(p, pivot);
        for q in p + 1..columns {
            let norms = libm::sqrt(squares[p]) * libm::sqrt(squares[q]);
            if norms == 0.0 {
                continue;
            }
            let (mut x, mut y) = a.columns_range_pair_mut(p, q);
            let (x, y) = (x.as_mut_slice(), y.as_mut_slice());
            let g = dot(x, y);
            let cosine = libm::fabs(g) / norms;
            if cosine <= tolerance {
                continue;
            }
            largest_cosine = largest_cosine.max(cosine);
            let rotation = Rotation::diagonalising(squares[p], squares[q], g);
            rotation.apply(x, y);
            // Fresh norms: `squares[q] - t g` would cancel just when the columns are nearly
            // parallel.
            squares[p] = squared_norm(x);
            squares[q] = squared_norm(y);
            rotation.apply_to_columns(v, p, q);
        }
    }
    largest_cosine
}

fn sort_descending(
    a: &mut DMatrixViewMut<'_, f64>,
    v: &mut DMatrixViewMut<'_, f64>,
    squares: &mut [f64],
) {
    for i in 0..squares.len() {
        let best = largest_from(squares, i);
        squares.swap(i, best);
        a.swap_columns(i, best);
        v.swap_columns(i, best);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rotation::JACOBI_MAX_SWEEPS;
    use super::*;

    /// Lauchli's matrix: `A^T A` is singular in double precision, its small singular value is not
    /// lost here.
    #[test]
    fn nothing_is_squared_away() {
        let small = 1e-9;
        let mut a = [1.0, small, 0.0, 1.0, 0.0, small];
        let (mut sigma, mut v, mut workspace) = ([0.0; 2], [0.0; 4], [0.0; 2]);
        let report = jacobi_svd(
            DMatrixViewMut::from_slice(&mut a, 3, 2),
            &mut sigma,
            DMatrixViewMut::from_slice(&mut v, 2, 2),
            &mut workspace,
            JACOBI_MAX_SWEEPS,
        )
        .unwrap();
        assert_eq!(report.nonzero, 2);
        assert!((sigma[0] - libm::sqrt(2.0)).abs() < 1e-15);
        assert!((sigma[1] / small - 1.0).abs() < 1e-7, "{sigma:?}");
    }
}
