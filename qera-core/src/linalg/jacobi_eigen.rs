//! Eigenvalues and eigenvectors of a symmetric matrix by cyclic Jacobi rotations.
//!
//! **Derivation.** One rotation in the plane `(p, q)` by the angle `cot 2 phi = (a_qq - a_pp) / 2
//! a_pq` makes `a_pq` zero and moves its square, twice, from the off-diagonal to the diagonal part:
//! `off(A)^2` falls by `2 a_pq^2`. Visiting all pairs row by row with `|phi| <= pi/4` converges, in
//! the end quadratically (Forsythe and Henrici 1960). The product of the rotations is the
//! eigenvector matrix.
//!
//! Following Rutishauser (1966) the diagonal lives outside the matrix and the corrections `t a_pq`
//! are summed apart over one sweep and added once, so that many small corrections are not lost one
//! by one against a large diagonal. A pair is left alone when `|a_pq| <= eps sqrt(|a_pp a_qq|)`,
//! the relative test under which Jacobi computes the small eigenvalues of a scaled diagonally
//! dominant matrix to high relative accuracy (Demmel and Veselic 1992, theorem 2.3); an absolute
//! floor of `eps^2 max|a|` keeps exact zeros on the diagonal from asking for the impossible.
//!
//! **Cost.** About `6 n^3` flops a sweep with vectors, 6 to 10 sweeps.
//!
//! **Error bound.** The computed `Q L Q^T` is that of `A + dA` with `||dA|| <= p(n) eps ||A||`, `p`
//! growing slower than linearly in practice (Wilkinson 1965, section 5.19); `Q` is orthogonal to
//! the same multiple of eps.

use core::fmt;

use nalgebra::DMatrixViewMut;

use super::columns::{NonFinite, Part, largest_from, largest_magnitude, power_of_two_scale};
use super::lent::{
    ShapeMismatch, Workspace, WorkspaceTooSmall, expect_length, expect_matrix, from_lent,
};
use super::rotation::Rotation;

/// Why [`jacobi_eigen`] gave no decomposition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum JacobiEigenError {
    /// The matrix is not square, or `values` or `vectors` do not fit it.
    Shape(ShapeMismatch),
    /// The workspace is too short.
    Workspace(WorkspaceTooSmall),
    /// An element of the lower triangle is NaN or infinite.
    NonFinite {
        /// Row of the element.
        row: usize,
        /// Column of the element.
        column: usize,
    },
    /// The off-diagonal part is still too large after the last sweep.
    NoConvergence {
        /// Sweeps made.
        sweeps: usize,
        /// Frobenius norm of what is left off the diagonal, relative to that of the matrix.
        residual: f64,
    },
}

impl fmt::Display for JacobiEigenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(shape) => shape.fmt(f),
            Self::Workspace(workspace) => workspace.fmt(f),
            Self::NonFinite { row, column } => {
                write!(f, "element ({row}, {column}) is not finite")
            }
            Self::NoConvergence { sweeps, residual } => write!(
                f,
                "off-diagonal residual {residual:e} after {sweeps} Jacobi sweeps"
            ),
        }
    }
}

impl core::error::Error for JacobiEigenError {}

from_lent!(JacobiEigenError);

/// What [`jacobi_eigen`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JacobiEigenReport {
    /// Sweeps made, the last one without a rotation.
    pub sweeps: usize,
    /// Frobenius norm of what is left off the diagonal, relative to that of the matrix.
    pub residual: f64,
}

/// Number of `f64` that [`jacobi_eigen`] needs for an `n x n` matrix: `2 n`.
pub const fn jacobi_eigen_workspace_len(n: usize) -> usize {
    n.saturating_mul(2)
}

/// Decomposes a symmetric matrix, `A = Q diag(values) Q^T`, with the eigenvalues in descending
/// order.
///
/// # Shapes
/// | argument | shape | |
/// |---|---|---|
/// | `a` | n x n | only the lower triangle is read; destroyed |
/// | `values` | n | eigenvalues, descending |
/// | `vectors` | n x n | column `i` belongs to `values[i]`; orthonormal |
///
/// # Workspace
/// [`jacobi_eigen_workspace_len`]`(n)` = 2 n.
///
/// # Errors
/// [`Shape`](JacobiEigenError::Shape), [`Workspace`](JacobiEigenError::Workspace) and
/// [`NonFinite`](JacobiEigenError::NonFinite) are found before anything is written. After
/// [`NoConvergence`](JacobiEigenError::NoConvergence) the outputs hold the last iterate.
///
/// # Numerics
/// Backward error of a small multiple of `n eps ||A||`; see [the module](self) for small
/// eigenvalues. Entries are scaled by a power of two first, so no product overflows. Signs of the
/// vectors, and the basis of a multiple eigenvalue, are free.
///
/// # Determinism
/// Pairs are visited row by row and sorted by selection, both in a fixed order.
///
/// # References
/// Rutishauser, *The Jacobi method for real symmetric matrices*, Numer. Math. 9 (1966); Demmel and
/// Veselic, *Jacobi's method is more accurate than QR*, SIAM J. Matrix Anal. Appl. 13 (1992).
///
/// # Example
/// ```
/// use nalgebra::DMatrixViewMut;
/// use qera_core::linalg::{
///     JACOBI_MAX_SWEEPS, JacobiEigenReport, jacobi_eigen, jacobi_eigen_workspace_len,
/// };
///
/// let mut a = [2.0, 1.0, 1.0, 2.0];
/// let (mut values, mut vectors) = ([0.0; 2], [0.0; 4]);
/// let mut workspace = [0.0; jacobi_eigen_workspace_len(2)];
/// let JacobiEigenReport { sweeps, residual } = jacobi_eigen(
///     DMatrixViewMut::from_slice(&mut a, 2, 2),
///     &mut values,
///     DMatrixViewMut::from_slice(&mut vectors, 2, 2),
///     &mut workspace,
///     JACOBI_MAX_SWEEPS,
/// )?;
/// assert!((values[0] - 3.0).abs() < 1e-15 && (values[1] - 1.0).abs() < 1e-15);
/// assert!(sweeps == 2 && residual < 1e-15);
/// # Ok::<(), qera_core::linalg::JacobiEigenError>(())
/// ```
pub fn jacobi_eigen(
    mut a: DMatrixViewMut<'_, f64>,
    values: &mut [f64],
    mut vectors: DMatrixViewMut<'_, f64>,
    workspace: &mut [f64],
    max_sweeps: usize,
) -> Result<JacobiEigenReport, JacobiEigenError> {
    let n = a.nrows();
    expect_matrix("a", &a, n, n)?;
    expect_length("values", values, n)?;
    expect_matrix("vectors", &vectors, n, n)?;
    let mut workspace = Workspace::new(workspace, jacobi_eigen_workspace_len(n))?;
    let (base, change) = (workspace.take(n), workspace.take(n));

    let largest = largest_magnitude(&a, Part::Lower)
        .map_err(|NonFinite { row, column }| JacobiEigenError::NonFinite { row, column })?;
    let scale = power_of_two_scale(largest);
    for j in 0..n {
        for i in j..n {
            let scaled = a[(i, j)] * scale;
            a[(i, j)] = scaled;
            a[(j, i)] = scaled;
        }
        values[j] = a[(j, j)];
    }
    base.copy_from_slice(values);
    vectors.fill_with_identity();

    let norm = libm::sqrt(off_diagonal(&a) + values.iter().map(|d| d * d).sum::<f64>());
    let mut sweeps = 0;
    let converged = loop {
        if sweeps == max_sweeps {
            break false;
        }
        sweeps += 1;
        change.fill(0.0);
        let rotations = sweep(&mut a, values, change, &mut vectors);
        for (base, change) in base.iter_mut().zip(change.iter()) {
            *base += change;
        }
        values.copy_from_slice(base);
        if rotations == 0 {
            break true;
        }
    };

    let off = libm::sqrt(off_diagonal(&a));
    let residual = if norm > 0.0 { off / norm } else { 0.0 };
    for value in values.iter_mut() {
        *value /= scale;
    }
    sort_descending(values, &mut vectors);
    if converged {
        Ok(JacobiEigenReport { sweeps, residual })
    } else {
        Err(JacobiEigenError::NoConvergence { sweeps, residual })
    }
}

/// Sum of squares off the diagonal.
fn off_diagonal(a: &DMatrixViewMut<'_, f64>) -> f64 {
    let mut sum = 0.0;
    for j in 0..a.ncols() {
        for i in j + 1..a.nrows() {
            sum += 2.0 * a[(i, j)] * a[(i, j)];
        }
    }
    sum
}

/// Visits every pair once and returns the number of rotations made. The diagonal of `a` is stale:
/// `values` has it.
fn sweep(
    a: &mut DMatrixViewMut<'_, f64>,
    values: &mut [f64],
    change: &mut [f64],
    vectors: &mut DMatrixViewMut<'_, f64>,
) -> usize {
    let n = values.len();
    let mut rotations = 0;
    for p in 0..n {
        for q in p + 1..n {
            let g = a[(q, p)];
            let (a_pp, a_qq) = (values[p], values[q]);
            let negligible =
                f64::EPSILON * libm::sqrt(libm::fabs(a_pp)) * libm::sqrt(libm::fabs(a_qq));
            if libm::fabs(g) <= negligible.max(f64::EPSILON * f64::EPSILON) {
                continue;
            }
            rotations += 1;
            let rotation = Rotation::diagonalising(a_pp, a_qq, g);
            let t = rotation.tangent;
            values[p] -= t * g;
            values[q] += t * g;
            change[p] -= t * g;
            change[q] += t * g;
            rotation.apply_to_columns(a, p, q);
            // Symmetry: rows p and q equal the rotated columns; the pair itself is zero by
            // construction.
            for i in 0..n {
                a[(p, i)] = a[(i, p)];
                a[(q, i)] = a[(i, q)];
            }
            a[(q, p)] = 0.0;
            a[(p, q)] = 0.0;
            rotation.apply_to_columns(vectors, p, q);
        }
    }
    rotations
}

/// Selection sort: at most n swaps of columns, where any other sort would move more of them.
fn sort_descending(values: &mut [f64], vectors: &mut DMatrixViewMut<'_, f64>) {
    for i in 0..values.len() {
        let best = largest_from(values, i);
        values.swap(i, best);
        vectors.swap_columns(i, best);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rotation::JACOBI_MAX_SWEEPS;
    use super::*;

    #[test]
    fn only_the_lower_triangle_is_read() {
        // [[1, 2, 3], [2, 3, 1], [3, 1, 2]]: every row sums to 6, the trace is 6, the determinant
        // -18.
        let mut a = [1.0, 2.0, 3.0, f64::NAN, 3.0, 1.0, f64::NAN, f64::NAN, 2.0];
        let (mut values, mut vectors, mut workspace) = ([0.0; 3], [0.0; 9], [0.0; 6]);
        let report = jacobi_eigen(
            DMatrixViewMut::from_slice(&mut a, 3, 3),
            &mut values,
            DMatrixViewMut::from_slice(&mut vectors, 3, 3),
            &mut workspace,
            JACOBI_MAX_SWEEPS,
        )
        .unwrap();
        assert!(report.residual < 1e-15 && report.sweeps < 8, "{report:?}");
        let sum: f64 = values.iter().sum();
        let product: f64 = values.iter().product();
        assert!((values[0] - 6.0).abs() < 1e-14 && (sum - 6.0).abs() < 1e-14);
        assert!((product - -18.0).abs() < 1e-13, "{values:?}");
        // The leading vector is (1, 1, 1) / sqrt(3), of either sign.
        assert!(
            vectors[..3]
                .iter()
                .all(|v| (v * v - 1.0 / 3.0).abs() < 1e-15)
        );
    }
}
