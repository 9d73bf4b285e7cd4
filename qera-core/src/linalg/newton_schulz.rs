//! Square root and inverse square root of a symmetric positive definite matrix by the coupled
//! Newton-Schulz iteration.
//!
//! **Derivation.** Newton's method for the matrix sign function, applied to `[[0, A], [I, 0]]` and
//! with the inverse replaced by Schulz's step, splits into
//!
//! ```text
//! T = (3 I - Z Y) / 2,    Y <- Y T,    Z <- T Z,    Y_0 = A / s,  Z_0 = I,
//! ```
//!
//! with `Y -> (A/s)^{1/2}` and `Z -> (A/s)^{-1/2}`: products only, no factorisation. With `s =
//! ||A||_F` the eigenvalues `l` of `A / s` lie in (0, 1]. Each obeys the scalar iteration for `w =
//! z y`, `w <- w (3 - w)^2 / 4` from `w = l`: it grows by 9/4 a step while small, and then `1 - w`
//! is squared (times 3/4). So about `log_{9/4} cond(A)` steps bring the smallest eigenvalue near 1,
//! and five or six more finish. The order of the factors matters: `Z Y`, `Y T`, `T Z` as written is
//! stable, other orders that agree in exact arithmetic are not (Higham 2008, section 6.3).
//!
//! An eigenvalue that is exactly zero stays zero: the residual never falls below 1. A negative one
//! (rounding makes them of exact zeros) grows without bound. Both end here as errors, with the
//! count and the residual; a caller that must take singular input has the eigenvalue route, or
//! needs no root at all (`reconstruct`).
//!
//! **Cost.** `6 n^3` flops a step: 40 to 50 times `n^3` at cond 100, twice that at 1e7. It is here
//! because it is only products (what a matrix engine has), not because it is fast on a processor.
//!
//! **Error bound.** Stops on `||I - Z Y||_F / sqrt(n) <= tolerance` and applies the step already
//! computed, which squares that residual. The attainable residual is about `n eps sqrt(cond(A))`.

use core::fmt;

use nalgebra::{DMatrixView, DMatrixViewMut};

use super::columns::{NonFinite, Part, add_scaled, dot, largest_magnitude};
use super::lent::{ShapeMismatch, Workspace, WorkspaceTooSmall, expect_matrix, from_lent};

/// The conditions under which [`newton_schulz`] stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewtonSchulzLimits {
    /// Steps after which it gives up.
    pub max_iterations: usize,
    /// Residual `||I - Z Y||_F / sqrt(n)` at which the iteration ends. The last step squares it, so
    /// 1e-8 already means rounding error.
    pub tolerance: f64,
}

impl Default for NewtonSchulzLimits {
    /// 100 steps (enough for cond 1e30, which double precision cannot reach) and a residual of
    /// 1e-8.
    fn default() -> Self {
        Self {
            max_iterations: 100,
            tolerance: 1e-8,
        }
    }
}

/// Why [`newton_schulz`] gave no square root.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NewtonSchulzError {
    /// The matrix is not square, or an output does not fit it.
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
    /// A diagonal element is zero or negative, so the matrix is certainly not positive definite.
    NotPositiveDefinite {
        /// Position on the diagonal.
        index: usize,
        /// The element.
        value: f64,
    },
    /// The residual did not reach the tolerance: the matrix is singular or too ill-conditioned for
    /// this method.
    NoConvergence {
        /// Steps made.
        iterations: usize,
        /// `||I - Z Y||_F / sqrt(n)` at the end.
        residual: f64,
    },
    /// The residual grew: an eigenvalue is negative, or so small that rounding made it so.
    Diverged {
        /// Steps made.
        iterations: usize,
        /// `||I - Z Y||_F / sqrt(n)` at the end; may be infinite or NaN.
        residual: f64,
    },
}

impl fmt::Display for NewtonSchulzError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(shape) => shape.fmt(f),
            Self::Workspace(workspace) => workspace.fmt(f),
            Self::NonFinite { row, column } => {
                write!(f, "element ({row}, {column}) is not finite")
            }
            Self::NotPositiveDefinite { index, value } => write!(
                f,
                "not positive definite: diagonal element {index} is {value:e}"
            ),
            Self::NoConvergence {
                iterations,
                residual,
            } => write!(
                f,
                "singular or ill-conditioned: residual {residual:e} after {iterations} Newton-Schulz steps"
            ),
            Self::Diverged {
                iterations,
                residual,
            } => write!(
                f,
                "not positive definite: Newton-Schulz diverged to residual {residual:e} in {iterations} steps"
            ),
        }
    }
}

impl core::error::Error for NewtonSchulzError {}

from_lent!(NewtonSchulzError);

/// What [`newton_schulz`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NewtonSchulzReport {
    /// Steps made.
    pub iterations: usize,
    /// `||I - Z Y||_F / sqrt(n)` before the last step, which squares it down to rounding error.
    pub residual: f64,
}

/// Number of `f64` that [`newton_schulz`] needs for an `n x n` matrix: `n^2 + n`.
pub const fn newton_schulz_workspace_len(n: usize) -> usize {
    n.saturating_mul(n).saturating_add(n)
}

/// Computes `root = A^{1/2}` and `inverse_root = A^{-1/2}` together, both symmetric positive
/// definite.
///
/// # Shapes
/// `a`, `root` and `inverse_root` are n x n. `a` is taken as symmetric.
///
/// # Workspace
/// [`newton_schulz_workspace_len`]`(n)` = n^2 + n: one matrix `T`, and one row or column of a
/// product made in place.
///
/// # Errors
/// [`NotPositiveDefinite`](NewtonSchulzError::NotPositiveDefinite),
/// [`NoConvergence`](NewtonSchulzError::NoConvergence) and
/// [`Diverged`](NewtonSchulzError::Diverged) mean that the matrix has no inverse square root that
/// this method can reach: take the eigenvalue route. The outputs then hold no meaning.
///
/// # Numerics
/// `||root^2 - A|| / ||A||` of about `n eps cond(A)^{1/4}` (measured up to cond 1e9), `||root
/// inverse_root - I||` of about `n eps sqrt(cond(A))`.
///
/// # Determinism
/// Products in a fixed order; the number of steps depends on the data only.
///
/// # References
/// Higham, *Functions of Matrices* (2008), equation (6.35) and section 6.3; Schulz, ZAMM 13 (1933).
/// It is the matrix square root of the QERA paper's equation (10), which its authors compute by a
/// Schur decomposition.
///
/// # Example
/// ```
/// use nalgebra::{DMatrixView, DMatrixViewMut};
/// use qera_core::linalg::{
///     NewtonSchulzLimits, NewtonSchulzReport, newton_schulz, newton_schulz_workspace_len,
/// };
///
/// let a = [5.0, 4.0, 4.0, 5.0]; // eigenvalues 9 and 1
/// let (mut root, mut inverse_root) = ([0.0; 4], [0.0; 4]);
/// let mut workspace = [0.0; newton_schulz_workspace_len(2)];
/// let NewtonSchulzReport { iterations, residual } = newton_schulz(
///     DMatrixView::from_slice(&a, 2, 2),
///     DMatrixViewMut::from_slice(&mut root, 2, 2),
///     DMatrixViewMut::from_slice(&mut inverse_root, 2, 2),
///     &mut workspace,
///     NewtonSchulzLimits::default(),
/// )?;
/// assert!((root[0] - 2.0).abs() < 1e-14 && (root[1] - 1.0).abs() < 1e-14);
/// assert!(iterations < 10 && residual < 1e-8);
/// # Ok::<(), qera_core::linalg::NewtonSchulzError>(())
/// ```
pub fn newton_schulz(
    a: DMatrixView<'_, f64>,
    mut root: DMatrixViewMut<'_, f64>,
    mut inverse_root: DMatrixViewMut<'_, f64>,
    workspace: &mut [f64],
    limits: NewtonSchulzLimits,
) -> Result<NewtonSchulzReport, NewtonSchulzError> {
    let n = a.nrows();
    expect_matrix("a", &a, n, n)?;
    expect_matrix("root", &root, n, n)?;
    expect_matrix("inverse_root", &inverse_root, n, n)?;
    let mut workspace = Workspace::new(workspace, newton_schulz_workspace_len(n))?;
    let mut t = DMatrixViewMut::from_slice(workspace.take(n * n), n, n);
    let line = workspace.take(n);
    if n == 0 {
        return Ok(NewtonSchulzReport {
            iterations: 0,
            residual: 0.0,
        });
    }

    let scale = checked_norm(&a)?;
    for (mut y, a) in root.column_iter_mut().zip(a.column_iter()) {
        for (y, a) in y.as_mut_slice().iter_mut().zip(a.as_slice()) {
            *y = a / scale;
        }
    }
    inverse_root.fill_with_identity();

    let report = iterate(&mut root, &mut inverse_root, &mut t, line, limits)?;
    let factor = libm::sqrt(scale);
    symmetrise(&mut root, factor);
    symmetrise(&mut inverse_root, 1.0 / factor);
    Ok(report)
}

/// Frobenius norm of a finite matrix with a positive diagonal.
fn checked_norm(a: &DMatrixView<'_, f64>) -> Result<f64, NewtonSchulzError> {
    let largest = largest_magnitude(a, Part::Whole)
        .map_err(|NonFinite { row, column }| NewtonSchulzError::NonFinite { row, column })?;
    for index in 0..a.nrows() {
        let value = a[(index, index)];
        if value <= 0.0 {
            return Err(NewtonSchulzError::NotPositiveDefinite { index, value });
        }
    }
    // Relative to the largest element, so that no square overflows.
    let sum: f64 = a
        .column_iter()
        .flat_map(|column| column.into_iter())
        .map(|x| (x / largest) * (x / largest))
        .sum();
    Ok(largest * libm::sqrt(sum))
}

fn iterate(
    y: &mut DMatrixViewMut<'_, f64>,
    z: &mut DMatrixViewMut<'_, f64>,
    t: &mut DMatrixViewMut<'_, f64>,
    line: &mut [f64],
    limits: NewtonSchulzLimits,
) -> Result<NewtonSchulzReport, NewtonSchulzError> {
    let mut previous = f64::INFINITY;
    for iteration in 1..=limits.max_iterations {
        let residual = step_matrix(z, y, t);
        // In exact arithmetic the residual of a positive definite matrix never grows; near 1 it may
        // stand almost still.
        if !residual.is_finite() || (residual > 1.0 && residual > 1.1 * previous) {
            return Err(NewtonSchulzError::Diverged {
                iterations: iteration - 1,
                residual,
            });
        }
        if residual < 0.5 && residual > previous && residual > limits.tolerance {
            // Rounding has taken over above the tolerance: more steps only add to it.
            return Err(NewtonSchulzError::NoConvergence {
                iterations: iteration - 1,
                residual,
            });
        }
        multiply_right(y, t, line);
        multiply_left(t, z, line);
        if residual <= limits.tolerance {
            return Ok(NewtonSchulzReport {
                iterations: iteration,
                residual,
            });
        }
        previous = residual;
    }
    Err(NewtonSchulzError::NoConvergence {
        iterations: limits.max_iterations,
        residual: previous,
    })
}

/// `T = (3 I - Z Y) / 2`, and the residual `||I - Z Y||_F / sqrt(n)`.
fn step_matrix(
    z: &DMatrixViewMut<'_, f64>,
    y: &DMatrixViewMut<'_, f64>,
    t: &mut DMatrixViewMut<'_, f64>,
) -> f64 {
    let n = t.nrows();
    let mut sum = 0.0;
    for (j, (mut t, y)) in t.column_iter_mut().zip(y.column_iter()).enumerate() {
        let t = t.as_mut_slice();
        t.fill(0.0);
        for (z, y) in z.column_iter().zip(y.as_slice()) {
            add_scaled(*y, z.as_slice(), t);
        }
        for (i, value) in t.iter_mut().enumerate() {
            let identity = f64::from(u8::from(i == j));
            let off = identity - *value;
            sum += off * off;
            *value = identity + 0.5 * off;
        }
    }
    libm::sqrt(sum / n as f64)
}

/// `Y <- Y T`, row by row.
fn multiply_right(y: &mut DMatrixViewMut<'_, f64>, t: &DMatrixViewMut<'_, f64>, row: &mut [f64]) {
    for i in 0..y.nrows() {
        for (j, value) in row.iter_mut().enumerate() {
            *value = y[(i, j)];
        }
        for (j, t) in t.column_iter().enumerate() {
            y[(i, j)] = dot(row, t.as_slice());
        }
    }
}

/// `Z <- T Z`, column by column.
fn multiply_left(t: &DMatrixViewMut<'_, f64>, z: &mut DMatrixViewMut<'_, f64>, column: &mut [f64]) {
    for mut z in z.column_iter_mut() {
        let z = z.as_mut_slice();
        column.fill(0.0);
        for (t, z) in t.column_iter().zip(z.iter()) {
            add_scaled(*z, t.as_slice(), column);
        }
        z.copy_from_slice(column);
    }
}

/// `X <- factor (X + X^T) / 2`.
fn symmetrise(x: &mut DMatrixViewMut<'_, f64>, factor: f64) {
    for j in 0..x.ncols() {
        for i in j..x.nrows() {
            let mean = factor * (0.5 * (x[(i, j)] + x[(j, i)]));
            x[(i, j)] = mean;
            x[(j, i)] = mean;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(a: &[f64; 4], limits: NewtonSchulzLimits) -> Result<[f64; 4], NewtonSchulzError> {
        let (mut root, mut inverse, mut workspace) = ([0.0; 4], [0.0; 4], [0.0; 6]);
        newton_schulz(
            DMatrixView::from_slice(a, 2, 2),
            DMatrixViewMut::from_slice(&mut root, 2, 2),
            DMatrixViewMut::from_slice(&mut inverse, 2, 2),
            &mut workspace,
            limits,
        )?;
        Ok(root)
    }

    #[test]
    fn scale_does_not_matter() {
        let plain = run(&[5.0, 4.0, 4.0, 5.0], NewtonSchulzLimits::default()).unwrap();
        let large = [5.0e200, 4.0e200, 4.0e200, 5.0e200];
        let large = run(&large, NewtonSchulzLimits::default()).unwrap();
        for (plain, large) in plain.iter().zip(&large) {
            assert!((plain * 1e100 - large).abs() <= 1e-14 * large);
        }
    }

    #[test]
    fn a_singular_matrix_ends_in_an_error() {
        let result = run(&[1.0, 1.0, 1.0, 1.0], NewtonSchulzLimits::default());
        assert!(matches!(
            result,
            Err(NewtonSchulzError::NoConvergence { .. } | NewtonSchulzError::Diverged { .. })
        ));
    }
}
