//! Reconstruction by projection: `C = E V V^T`, with no square root and no inverse.
//!
//! **Derivation.** Theorem 1 of the QERA paper gives the minimiser of `f(C) = tr(R P P^T)` over
//! rank k as `C = R^{-1/2} U_k S_k V_k^T` from `U S V^T = R^{1/2} E` (equations (10) to (12)). Now
//! `U_k S_k V_k^T = R^{1/2} E V_k V_k^T`, since projecting onto the leading right singular vectors
//! is what truncation does. The roots cancel:
//!
//! ```text
//! C = E V_k V_k^T,   V_k = the k leading eigenvectors of G = (R^{1/2} E)^T (R^{1/2} E) = E^T R E.
//! ```
//!
//! So `A = E V_k` and `B = V_k^T`, for any positive semi-definite `R`. Where `R` is singular (a
//! dead channel, fewer tokens than channels) the minimiser is not unique; this one is `E` times a
//! projector, so `||C|| <= ||E||` and it stays finite, where the inverse root amplifies noise
//! without bound. `G` is not formed either: `G X = E^T (R (E X))` is applied to blocks of columns
//! ([`block_krylov()`]).
//!
//! **What it achieves** comes with it. For orthonormal `V`, under any statistic `R`, `f_R(E V V^T)
//! = tr(G_R) - tr(V^T G_R V) = tr(G_R) - sum_j a_j^T R a_j <= tr(G_R) = f_R(0)`: the correction
//! never hurts under the statistic it is measured by, whichever one it was solved with. Where the
//! difference would lose more than six digits, `tr(R P P^T)` is summed directly instead.
//!
//! **Cost.** `4 m n + 2 m^2` flops a column applied (half of `R` is read, both halves are used),
//! some `6 k + 100` columns; plus `2 m^2 n` for `tr(G)`, and as much again for `tr(R W W^T)`.
//!
//! **Error bound.** `f` is stationary in `V`: a subspace error `d` costs `O(d^2)`. Eigenvalues of
//! `G` below `max(m, n) eps l_1` are rounding; the rank really used ends there.

use core::fmt;

use nalgebra::{DMatrixView, DMatrixViewMut};

use super::metric::{GROUP, GroupScratch, Metric, OutputMoment, multiply};
use super::objective::{power, residual_power};
use super::{Method, Problem, Report};
use crate::linalg::{
    BlockKrylovError, BlockKrylovOptions, ShapeMismatch, Workspace, WorkspaceTooSmall,
    block_krylov, block_krylov_kept, block_krylov_workspace_len, expect_matrix, from_lent,
};

/// If less than this share of `tr(G)` is left, the error is summed directly instead of by
/// difference.
const DIRECT_BELOW: f64 = 1e-6;

/// The captured sum is converged to this share of what it leaves: well below the 1e-9 to which
/// independent routines must agree, and above the rounding of `f64` products.
const CAPTURED_TOLERANCE: f64 = 1e-11;

/// Why a reconstruction failed. The factors then hold nothing of use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ReconstructError {
    /// A lent factor does not fit the problem.
    Shape(ShapeMismatch),
    /// The workspace is too short.
    Workspace(WorkspaceTooSmall),
    /// The method needs the magnitude scale, and the problem has none.
    MissingScale {
        /// The method asked for.
        method: Method,
    },
    /// The eigenvectors of `G` were not found.
    Eigenvectors(BlockKrylovError),
}

impl fmt::Display for ReconstructError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(shape) => shape.fmt(f),
            Self::Workspace(workspace) => workspace.fmt(f),
            Self::MissingScale { method } => {
                write!(
                    f,
                    "method `{method}` needs a magnitude scale for every input channel"
                )
            }
            Self::Eigenvectors(error) => write!(f, "eigenvectors of E^T R E: {error}"),
        }
    }
}

impl core::error::Error for ReconstructError {}

from_lent!(ReconstructError);

/// Number of `f64` that [`reconstruct`](super::reconstruct) and [`reconstruct_exact`] need:
/// `16 m + (n + 1) kept +` [`block_krylov_workspace_len`]`(n, k)` with `k = min(rank, m, n)` and
/// `kept = min(k + 8, n)`.
#[must_use]
pub const fn reconstruct_workspace_len(
    in_features: usize,
    out_features: usize,
    rank: usize,
) -> usize {
    let wanted = possible_rank(in_features, out_features, rank);
    let kept = block_krylov_kept(out_features, wanted);
    GroupScratch::len(in_features)
        .saturating_add(out_features.saturating_add(1).saturating_mul(kept))
        .saturating_add(block_krylov_workspace_len(out_features, wanted))
}

/// QERA-exact: the rank-k term that minimises the expected squared output error under the whole
/// autocorrelation.
///
/// # Shapes
/// | argument | shape | |
/// |---|---|---|
/// | `problem` | `E` m x n, rank k | shrinkage and warm start, if it has them, apply |
/// | `a` | m x k | out: `E V` |
/// | `b` | k x n | out: `V^T`, orthonormal rows |
/// | `spectrum` | any length | out: leading eigenvalues of `G`, as many as fit of the `min(k, m, n) + 8` computed |
///
/// # Workspace
/// [`reconstruct_workspace_len`]`(m, n, k)`.
///
/// # Errors
/// [`ReconstructError`]; shapes and lengths are checked before anything is computed.
///
/// # Numerics
/// `f` within about 1e-10 relative of the optimum. Columns beyond the numerical rank of `R^{1/2} E`
/// are exact zeros in both factors, and [`Report::rank_used`] counts the others. Singular `R`, dead
/// channels, an all-zero site and ranks above `min(m, n)` all give finite results.
///
/// # Determinism
/// See [`block_krylov()`]. The sign of each pair of column and row is free.
///
/// # References
/// QERA paper (ICLR 2025), theorem 1, equations (10) to (12); [the module](self) derives the
/// projection form.
///
/// # Example
/// ```
/// use nalgebra::{DMatrixView, DMatrixViewMut};
/// use qera_core::reconstruct::{
///     Problem, ReconstructError, Statistic, reconstruct_exact, reconstruct_workspace_len,
/// };
///
/// const M: usize = 2;
/// let error = [1.0, 0.0, 0.0, 1.0]; // E = I
/// let autocorrelation = [4.0, 0.0, 1.0]; // R = diag(4, 1), packed
/// let problem = Problem::new(
///     DMatrixView::from_slice(&error, M, M),
///     Statistic::Autocorrelation(&autocorrelation),
///     1,
/// )?;
/// let (mut a, mut b, mut spectrum) = ([0.0; M], [0.0; M], [0.0; M]);
/// let mut solve = |workspace: &mut [f64]| {
///     let a = DMatrixViewMut::from_slice(&mut a, M, 1);
///     let b = DMatrixViewMut::from_slice(&mut b, 1, M);
///     reconstruct_exact(&problem, a, b, &mut spectrum, workspace)
/// };
/// assert!(matches!(solve(&mut []), Err(ReconstructError::Workspace(_))));
/// let report = solve(&mut [0.0; reconstruct_workspace_len(M, M, 1)])?;
/// // The louder channel is repaired, the quiet one's error of 1 is left.
/// assert_eq!((report.error_without, report.error_with), (5.0, 1.0));
/// assert_eq!(spectrum, [4.0, 1.0]);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn reconstruct_exact(
    problem: &Problem<'_>,
    a: DMatrixViewMut<'_, f64>,
    b: DMatrixViewMut<'_, f64>,
    spectrum: &mut [f64],
    workspace: &mut [f64],
) -> Result<Report, ReconstructError> {
    project(
        problem,
        Some(Metric::shrunk(problem)),
        a,
        b,
        spectrum,
        workspace,
    )
}

/// Solves under `metric` (none: no correction at all) and reports under the problem's statistic.
pub(super) fn project(
    problem: &Problem<'_>,
    metric: Option<Metric<'_>>,
    mut a: DMatrixViewMut<'_, f64>,
    mut b: DMatrixViewMut<'_, f64>,
    spectrum: &mut [f64],
    workspace: &mut [f64],
) -> Result<Report, ReconstructError> {
    let error = problem.error();
    let ((m, n), rank) = (error.shape(), problem.rank());
    expect_matrix("a", &a, m, rank)?;
    expect_matrix("b", &b, rank, n)?;
    let mut workspace = Workspace::new(workspace, reconstruct_workspace_len(m, n, rank))?;
    let mut scratch = GroupScratch::take(&mut workspace, m);
    let wanted = possible_rank(m, n, rank);
    let kept = block_krylov_kept(n, wanted);
    let mut vectors = DMatrixViewMut::from_slice(workspace.take(n * kept), n, kept);
    let values = workspace.take(kept);
    let krylov = workspace.take(block_krylov_workspace_len(n, wanted));

    a.fill(0.0);
    b.fill(0.0);
    let truth = Metric::of(problem);
    let mut report = Report::without_correction(problem, &mut scratch);
    let Some(metric) = metric.filter(|_| wanted > 0) else {
        return Ok(report);
    };
    let options = BlockKrylovOptions {
        tolerance: CAPTURED_TOLERANCE,
        trace: Some(power(&metric, &error, &mut scratch)),
        ..BlockKrylovOptions::default()
    };
    let mut moment = OutputMoment {
        error,
        metric,
        scratch: &mut scratch,
    };
    block_krylov(
        |x, mut y| moment.apply(&x, &mut y),
        wanted,
        &options,
        problem.start(),
        values,
        vectors.as_view_mut(),
        krylov,
    )
    .map_err(ReconstructError::Eigenvectors)?;

    report.rank_used = numerical_rank(&values[..wanted], m.max(n));
    report.spectrum_len = spectrum.len().min(kept);
    for (out, value) in spectrum.iter_mut().zip(values.iter()) {
        *out = value.max(0.0);
    }
    let vectors = vectors.columns(0, report.rank_used);
    let captured = write_factors(&truth, &error, &vectors, &mut a, &mut b, &mut scratch);
    report.error_with = report.error_without - captured;
    if report.error_with < DIRECT_BELOW * report.error_without {
        let (a, b) = (a.as_view(), b.as_view());
        report.error_with = residual_power(&truth, &error, &a, &b, &mut scratch).max(0.0);
    }
    Ok(report)
}

/// The largest rank that a correction of an m x n error can have, at most `rank`.
pub(super) const fn possible_rank(in_features: usize, out_features: usize, rank: usize) -> usize {
    let smaller = if in_features < out_features {
        in_features
    } else {
        out_features
    };
    if rank < smaller { rank } else { smaller }
}

/// Number of eigenvalues (descending) that stand above rounding error.
fn numerical_rank(values: &[f64], order: usize) -> usize {
    let noise = order as f64 * f64::EPSILON * values[0].max(0.0);
    values.iter().take_while(|value| **value > noise).count()
}

/// `A = E V`, `B = V^T`, and `tr(V^T G V) = sum_j a_j^T R a_j`.
fn write_factors(
    truth: &Metric<'_>,
    error: &DMatrixView<'_, f64>,
    vectors: &DMatrixView<'_, f64>,
    a: &mut DMatrixViewMut<'_, f64>,
    b: &mut DMatrixViewMut<'_, f64>,
    scratch: &mut GroupScratch<'_>,
) -> f64 {
    let (m, used) = (error.nrows(), vectors.ncols());
    let mut first = 0;
    while first < used {
        let columns = GROUP.min(used - first);
        let products = &mut scratch.group[..columns * m];
        multiply(error, &vectors.columns(first, columns), products);
        for (product, j) in products.chunks_exact(m).zip(first..) {
            a.column_mut(j).as_mut_slice().copy_from_slice(product);
            for (i, v) in vectors.column(j).as_slice().iter().enumerate() {
                b[(j, i)] = *v;
            }
        }
        first += columns;
    }
    power(truth, &a.columns(0, used).as_view(), scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rank_ends_where_rounding_begins() {
        assert_eq!(numerical_rank(&[4.0, 1.0, 1e-20], 3), 2);
        assert_eq!(numerical_rank(&[0.0, 0.0], 2), 0);
        assert_eq!(numerical_rank(&[-1e-30], 1), 0);
        assert_eq!(possible_rank(3, 2, 9), 2);
        assert_eq!(possible_rank(3, 5, 1), 1);
    }
}
