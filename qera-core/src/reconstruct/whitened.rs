//! Reconstruction as the paper writes it: whiten the error, decompose it, and undo the whitening.
//!
//! **Derivation.** `tr(R P P^T) = ||R^{1/2} P||_F^2` (equation (16) of the QERA paper), so with `Q
//! = R^{1/2} E` the best `C` has `R^{1/2} C = U_k S_k V_k^T`, the truncated singular value
//! decomposition of `Q` (Eckart and Young), and
//!
//! ```text
//! A = R^{-1/2} U_k,   B = S_k V_k^T     (equation (10); the split is the paper's)
//! ```
//!
//! With `D = diag(E[x_i^2])` in place of `R` this is theorem 2, where the root is elementwise.
//!
//! The root comes from the coupled Newton-Schulz iteration (products only; `R` must be positive
//! definite) or from the Jacobi eigenvectors (any `R`; where an eigenvalue is below `m eps l_1` its
//! direction is left out of root and inverse alike, which is the pseudo-inverse and gives the
//! smallest of the minimisers). The singular values come from one-sided Jacobi.
//!
//! This is the route of the paper's reader, of small layers on a device, and the independent check
//! of `projection.rs`: the two share no step. It costs `O(m^3)` where the projection costs `O(m^2
//! k)`, and its factors lose `sqrt(cond R) eps`.
//!
//! **Cost.** About `60 m^3` flops for the root, `40 max(m, n) min(m, n)^2` for the decomposition.
//!
//! **Error bound.** `C` to a modest multiple of `sqrt(cond R) eps`; `f` to its square, since it is
//! stationary there. The reported `f` is summed directly over `P = E - A B`, so it is that of these
//! factors and not of the theory.

use core::fmt;

use nalgebra::{DMatrixView, DMatrixViewMut};

use super::metric::{GroupScratch, Metric};
use super::objective::residual_power;
use super::projection::possible_rank;
use super::{Problem, Report, Statistic};
use crate::linalg::{
    JACOBI_MAX_SWEEPS, JacobiEigenError, JacobiSvdError, NewtonSchulzError, NewtonSchulzLimits,
    ShapeMismatch, Workspace, WorkspaceTooSmall, add_scaled, expect_matrix, from_lent,
    jacobi_eigen, jacobi_eigen_workspace_len, jacobi_svd, jacobi_svd_workspace_len, newton_schulz,
    newton_schulz_workspace_len,
};
use crate::packed::packed_rows;

/// The way in which `R^{1/2}` and its inverse are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootMethod {
    /// Coupled Newton-Schulz iteration: products only, refuses a singular `R`.
    NewtonSchulz,
    /// Eigenvalues and eigenvectors by Jacobi rotations: takes any `R`, with the pseudo-inverse
    /// where it is singular.
    JacobiEigen,
}

/// Why [`reconstruct_whitened`] failed. The factors then hold nothing of use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WhitenedError {
    /// A lent factor does not fit the problem.
    Shape(ShapeMismatch),
    /// The workspace is too short.
    Workspace(WorkspaceTooSmall),
    /// `R` has no inverse square root that the iteration can reach: take
    /// [`RootMethod::JacobiEigen`].
    NewtonSchulz(NewtonSchulzError),
    /// The eigenvalues of `R` were not found.
    Eigenvalues(JacobiEigenError),
    /// The singular values of `R^{1/2} E` were not found.
    SingularValues(JacobiSvdError),
}

impl fmt::Display for WhitenedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(shape) => shape.fmt(f),
            Self::Workspace(workspace) => workspace.fmt(f),
            Self::NewtonSchulz(error) => write!(f, "square root of R: {error}"),
            Self::Eigenvalues(error) => write!(f, "eigenvalues of R: {error}"),
            Self::SingularValues(error) => write!(f, "singular values of R^(1/2) E: {error}"),
        }
    }
}

impl core::error::Error for WhitenedError {}

from_lent!(WhitenedError);

/// Number of `f64` that [`reconstruct_whitened`] needs: `4 m^2 + 19 m + m n + s^2 + 2 s` with `s =
/// min(m, n)`.
#[must_use]
pub const fn whitened_workspace_len(in_features: usize, out_features: usize) -> usize {
    let m = in_features;
    let s = possible_rank(m, out_features, usize::MAX);
    roots_len(m)
        .saturating_add(GroupScratch::len(m))
        .saturating_add(m.saturating_mul(out_features))
        .saturating_add(s.saturating_mul(s).saturating_add(s))
        .saturating_add(jacobi_svd_workspace_len(s))
}

/// `R`, its root and inverse root, and the larger of what the two methods need: vectors and values
/// beside the eigen scratch.
const fn roots_len(m: usize) -> usize {
    let newton = newton_schulz_workspace_len(m);
    let eigen = m
        .saturating_mul(m)
        .saturating_add(m)
        .saturating_add(jacobi_eigen_workspace_len(m));
    let larger = if newton > eigen { newton } else { eigen };
    m.saturating_mul(m).saturating_mul(3).saturating_add(larger)
}

/// QERA-exact by the paper's own formula, `A = R^{-1/2} U_k`, `B = S_k V_k^T`; QERA-approx when
/// only second moments are known.
///
/// # Shapes
/// | argument | shape | |
/// |---|---|---|
/// | `problem` | `E` m x n, rank k | shrinkage applies; a warm start has no use here |
/// | `a` | m x k | out |
/// | `b` | k x n | out |
/// | `spectrum` | any length | out: squared singular values of `R^{1/2} E`, as many as fit of `min(m, n)` |
///
/// # Workspace
/// [`whitened_workspace_len`]`(m, n)`.
///
/// # Errors
/// [`WhitenedError`]. A singular `R` is refused by [`RootMethod::NewtonSchulz`] and taken by
/// [`RootMethod::JacobiEigen`].
///
/// # Numerics
/// See [the module](self). For an invertible `R` the product `A B` equals that of
/// [`reconstruct_exact`](super::reconstruct_exact); for a singular one both are minimisers. Factors
/// beyond the numerical rank are exact zeros.
///
/// # Determinism
/// Fixed order throughout. The sign of each pair of column and row is free.
///
/// # References
/// QERA paper (ICLR 2025), theorem 1, equations (10), (12), (16) to (19); theorem 2, equations (22)
/// to (24).
///
/// # Example
/// ```
/// use nalgebra::{DMatrixView, DMatrixViewMut};
/// use qera_core::reconstruct::{
///     Problem, RootMethod, Statistic, WhitenedError, reconstruct_whitened, whitened_workspace_len,
/// };
///
/// const M: usize = 2;
/// let error = [1.0, 0.0, 0.0, 1.0]; // E = I
/// let autocorrelation = [4.0, 0.0, 1.0]; // R = diag(4, 1), packed
/// let (mut a, mut b, mut spectrum) = ([0.0; M], [0.0; M], [0.0; M]);
/// let mut workspace = [0.0; whitened_workspace_len(M, M)];
/// let mut solve = |autocorrelation: &[f64; 3], method| {
///     let error = DMatrixView::from_slice(&error, M, M);
///     let problem = Problem::new(error, Statistic::Autocorrelation(autocorrelation), 1).unwrap();
///     let a = DMatrixViewMut::from_slice(&mut a, M, 1);
///     let b = DMatrixViewMut::from_slice(&mut b, 1, M);
///     reconstruct_whitened(&problem, method, a, b, &mut spectrum, &mut workspace)
/// };
/// let singular = solve(&[4.0, 0.0, 0.0], RootMethod::NewtonSchulz);
/// assert!(matches!(singular, Err(WhitenedError::NewtonSchulz(_))));
/// let report = solve(&autocorrelation, RootMethod::NewtonSchulz)?;
/// assert!((report.error_with - 1.0).abs() < 1e-12);
/// assert!((a[0] * b[0] - 1.0).abs() < 1e-12);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn reconstruct_whitened(
    problem: &Problem<'_>,
    method: RootMethod,
    mut a: DMatrixViewMut<'_, f64>,
    mut b: DMatrixViewMut<'_, f64>,
    spectrum: &mut [f64],
    workspace: &mut [f64],
) -> Result<Report, WhitenedError> {
    let error = problem.error();
    let ((m, n), rank) = (error.shape(), problem.rank());
    expect_matrix("a", &a, m, rank)?;
    expect_matrix("b", &b, rank, n)?;
    let mut workspace = Workspace::new(workspace, whitened_workspace_len(m, n))?;
    let roots = Roots::find(problem, method, workspace.take(roots_len(m)))?;
    let mut scratch = GroupScratch::take(&mut workspace, m);

    // One-sided Jacobi wants a tall matrix, so a wide Q is handed over transposed and U and V
    // change places.
    let (tall, s) = (m >= n, m.min(n));
    let mut q = DMatrixViewMut::from_slice(workspace.take(m * n), m.max(n), s);
    roots.whiten_error(&error, tall, &mut q, &mut scratch.group[..m]);
    let mut v = DMatrixViewMut::from_slice(workspace.take(s * s), s, s);
    let sigma = workspace.take(s);
    let jacobi = workspace.take(jacobi_svd_workspace_len(s));
    jacobi_svd(
        q.as_view_mut(),
        sigma,
        v.as_view_mut(),
        jacobi,
        JACOBI_MAX_SWEEPS,
    )
    .map_err(WhitenedError::SingularValues)?;
    let (left, right) = if tall { (&q, &v) } else { (&v, &q) };

    let mut report = Report::without_correction(problem, &mut scratch);
    let noise = m.max(n) as f64 * f64::EPSILON * sigma[0];
    report.rank_used = sigma.iter().take(rank).take_while(|x| **x > noise).count();
    a.fill(0.0);
    b.fill(0.0);
    for (j, value) in sigma.iter().enumerate().take(report.rank_used) {
        roots.unwhiten(left.column(j).as_slice(), a.column_mut(j).as_mut_slice());
        for (i, v) in right.column(j).as_slice().iter().enumerate() {
            b[(j, i)] = value * v;
        }
    }
    report.spectrum_len = spectrum.len().min(s);
    for (out, value) in spectrum.iter_mut().zip(sigma.iter()) {
        *out = value * value;
    }
    let (truth, a, b) = (Metric::of(problem), a.as_view(), b.as_view());
    report.error_with = residual_power(&truth, &error, &a, &b, &mut scratch).max(0.0);
    Ok(report)
}

/// `S = R^{1/2}` and its (pseudo-)inverse.
#[derive(Debug)]
enum Roots<'w> {
    Full {
        root: DMatrixView<'w, f64>,
        inverse: DMatrixView<'w, f64>,
    },
    Diagonal {
        root: &'w [f64],
        inverse: &'w [f64],
    },
    Identity,
}

impl<'w> Roots<'w> {
    fn find(
        problem: &Problem<'_>,
        method: RootMethod,
        workspace: &'w mut [f64],
    ) -> Result<Self, WhitenedError> {
        let m = problem.in_features();
        match problem.statistic() {
            Statistic::Identity => Ok(Self::Identity),
            Statistic::Diagonal(diagonal) => {
                let (root, rest) = workspace.split_at_mut(m);
                let inverse = &mut rest[..m];
                for ((root, inverse), d) in root.iter_mut().zip(inverse.iter_mut()).zip(diagonal) {
                    *root = libm::sqrt(*d);
                    *inverse = if *d > 0.0 { 1.0 / *root } else { 0.0 };
                }
                Ok(Self::Diagonal { root, inverse })
            }
            Statistic::Autocorrelation(packed) => {
                let (r, rest) = workspace.split_at_mut(m * m);
                let (root, rest) = rest.split_at_mut(m * m);
                let (inverse, scratch) = rest.split_at_mut(m * m);
                unpack(packed, 1.0 - problem.shrinkage(), m, r);
                match method {
                    RootMethod::NewtonSchulz => {
                        newton_schulz(
                            DMatrixView::from_slice(r, m, m),
                            DMatrixViewMut::from_slice(root, m, m),
                            DMatrixViewMut::from_slice(inverse, m, m),
                            scratch,
                            NewtonSchulzLimits::default(),
                        )
                        .map_err(WhitenedError::NewtonSchulz)?;
                    }
                    RootMethod::JacobiEigen => {
                        eigen_roots(m, r, root, inverse, scratch)
                            .map_err(WhitenedError::Eigenvalues)?;
                    }
                }
                Ok(Self::Full {
                    root: DMatrixView::from_slice(root, m, m),
                    inverse: DMatrixView::from_slice(inverse, m, m),
                })
            }
        }
    }

    /// `Q = S E`, or its transpose when it is not tall; `column` is scratch of length m.
    fn whiten_error(
        &self,
        error: &DMatrixView<'_, f64>,
        tall: bool,
        q: &mut DMatrixViewMut<'_, f64>,
        column: &mut [f64],
    ) {
        for (j, e) in error.column_iter().enumerate() {
            self.whiten(e.as_slice(), column);
            for (i, value) in column.iter().enumerate() {
                q[if tall { (i, j) } else { (j, i) }] = *value;
            }
        }
    }

    /// `out = S x`.
    fn whiten(&self, x: &[f64], out: &mut [f64]) {
        match self {
            Self::Full { root, .. } => multiply(root, x, out),
            Self::Diagonal { root, .. } => scale(root, x, out),
            Self::Identity => out.copy_from_slice(x),
        }
    }

    /// `out = S^{-1} x`.
    fn unwhiten(&self, x: &[f64], out: &mut [f64]) {
        match self {
            Self::Full { inverse, .. } => multiply(inverse, x, out),
            Self::Diagonal { inverse, .. } => scale(inverse, x, out),
            Self::Identity => out.copy_from_slice(x),
        }
    }
}

fn multiply(matrix: &DMatrixView<'_, f64>, x: &[f64], out: &mut [f64]) {
    out.fill(0.0);
    for (column, x) in matrix.column_iter().zip(x) {
        add_scaled(*x, column.as_slice(), out);
    }
}

fn scale(diagonal: &[f64], x: &[f64], out: &mut [f64]) {
    for ((out, d), x) in out.iter_mut().zip(diagonal).zip(x) {
        *out = d * x;
    }
}

/// The full symmetric matrix, its off-diagonal part multiplied by `off_diagonal`.
fn unpack(packed: &[f64], off_diagonal: f64, m: usize, full: &mut [f64]) {
    for (i, row) in packed_rows(packed, m).enumerate() {
        full[i * m + i] = row[0];
        for (j, value) in (i + 1..m).zip(&row[1..]) {
            full[i * m + j] = off_diagonal * value;
            full[j * m + i] = off_diagonal * value;
        }
    }
}

/// `Q diag(l^{1/2}) Q^T` and `Q diag(l^{-1/2}) Q^T` over the eigenvalues above rounding error.
fn eigen_roots(
    m: usize,
    r: &mut [f64],
    root: &mut [f64],
    inverse: &mut [f64],
    scratch: &mut [f64],
) -> Result<(), JacobiEigenError> {
    let (vectors, rest) = scratch.split_at_mut(m * m);
    let (values, scratch) = rest.split_at_mut(m);
    jacobi_eigen(
        DMatrixViewMut::from_slice(r, m, m),
        values,
        DMatrixViewMut::from_slice(vectors, m, m),
        scratch,
        JACOBI_MAX_SWEEPS,
    )?;
    let noise = m as f64 * f64::EPSILON * values[0].max(0.0);
    root.fill(0.0);
    inverse.fill(0.0);
    for (vector, value) in vectors.chunks_exact(m).zip(values.iter()) {
        if *value <= noise {
            break;
        }
        let square_root = libm::sqrt(*value);
        for (j, v) in vector.iter().enumerate() {
            add_scaled(square_root * v, vector, &mut root[j * m..(j + 1) * m]);
            add_scaled(v / square_root, vector, &mut inverse[j * m..(j + 1) * m]);
        }
    }
    Ok(())
}
