//! The objective itself: `f(A B) = tr(R P P^T)`, `P = E - A B`, for any factors.
//!
//! **Derivation.** `E ||x P||^2 = tr(P^T E[x^T x] P) = sum_j p_j^T R p_j` over the columns of `P`
//! (equation (15) of the QERA paper): nothing but products of `R` with columns, each term is
//! non-negative, so the sum has no cancellation. That makes it the judge of every other formula in
//! this module, and the only one that holds for factors after rounding.
//!
//! **Cost.** `2 m n k + 2 m^2 n` flops with a full `R`, one pass over `R` for 8 columns.
//!
//! **Error bound.** Relative error of about `(m + k) eps` of the products' magnitudes; sums in
//! `f64`.

use core::fmt;

use nalgebra::DMatrixView;

use super::metric::{GROUP, GroupScratch, Metric};
use super::problem::Problem;
use crate::linalg::{
    ShapeMismatch, Workspace, WorkspaceTooSmall, add_scaled, dot, expect_matrix, from_lent,
};

/// Why [`output_error`] could not be evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputErrorError {
    /// The factors do not fit the problem or each other.
    Shape(ShapeMismatch),
    /// The workspace is too short.
    Workspace(WorkspaceTooSmall),
}

impl fmt::Display for OutputErrorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(shape) => shape.fmt(f),
            Self::Workspace(workspace) => workspace.fmt(f),
        }
    }
}

impl core::error::Error for OutputErrorError {}

from_lent!(OutputErrorError);

/// Number of `f64` that [`output_error`] needs: `16 m`.
#[must_use]
pub const fn output_error_workspace_len(in_features: usize) -> usize {
    GroupScratch::len(in_features)
}

/// Evaluates `tr(R P P^T)`, `P = E - A B`, under the problem's statistic.
///
/// # Shapes
/// `a` is m x k and `b` is k x n, for any k; k = 0 gives the error without correction.
///
/// # Workspace
/// [`output_error_workspace_len`]`(m)` = 16 m.
///
/// # Errors
/// [`OutputErrorError::Shape`], [`OutputErrorError::Workspace`]. Factors that are not finite give a
/// result that is not finite: that is what such factors do.
///
/// # Numerics
/// No cancellation: a sum of `n` non-negative terms.
///
/// # Determinism
/// Columns in order, eight at a time.
///
/// # References
/// QERA paper, equations (13) to (15).
///
/// # Example
/// ```
/// use nalgebra::DMatrixView;
/// use qera_core::linalg::WorkspaceTooSmall;
/// use qera_core::reconstruct::{
///     OutputErrorError, Problem, Statistic, output_error, output_error_workspace_len,
/// };
///
/// let error = [1.0, 2.0]; // 2 x 1
/// let error = DMatrixView::from_slice(&error, 2, 1);
/// let problem = Problem::new(error, Statistic::Diagonal(&[1.0, 4.0]), 1)?;
/// let (a, b) = ([0.0, 2.0], [1.0]);
/// let (a, b) = (DMatrixView::from_slice(&a, 2, 1), DMatrixView::from_slice(&b, 1, 1));
/// let mut workspace = [0.0; output_error_workspace_len(2)];
/// assert_eq!(output_error(&problem, a, b, &mut workspace)?, 1.0); // of 17 without
///
/// let short = WorkspaceTooSmall { needed: 32, lent: 3 };
/// let refused = output_error(&problem, a, b, &mut [0.0; 3]);
/// assert_eq!(refused, Err(OutputErrorError::Workspace(short)));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn output_error(
    problem: &Problem<'_>,
    a: DMatrixView<'_, f64>,
    b: DMatrixView<'_, f64>,
    workspace: &mut [f64],
) -> Result<f64, OutputErrorError> {
    let (m, n) = problem.error().shape();
    let rank = a.ncols();
    expect_matrix("a", &a, m, rank)?;
    expect_matrix("b", &b, rank, n)?;
    let mut workspace = Workspace::new(workspace, output_error_workspace_len(m))?;
    let mut scratch = GroupScratch::take(&mut workspace, m);
    let (truth, error) = (Metric::of(problem), problem.error());
    Ok(residual_power(&truth, &error, &a, &b, &mut scratch))
}

/// `sum_j p_j^T R p_j` for `P = E - A B`.
pub(super) fn residual_power(
    metric: &Metric<'_>,
    error: &DMatrixView<'_, f64>,
    a: &DMatrixView<'_, f64>,
    b: &DMatrixView<'_, f64>,
    scratch: &mut GroupScratch<'_>,
) -> f64 {
    sum_over_groups(
        metric,
        error.ncols(),
        error.nrows(),
        scratch,
        |j, column| {
            column.copy_from_slice(error.column(j).as_slice());
            for (a, coefficient) in a.column_iter().zip(b.column(j).as_slice()) {
                add_scaled(-coefficient, a.as_slice(), column);
            }
        },
    )
}

/// `tr(R X X^T) = sum_j x_j^T R x_j` over the columns of a matrix.
pub(super) fn power(
    metric: &Metric<'_>,
    x: &DMatrixView<'_, f64>,
    scratch: &mut GroupScratch<'_>,
) -> f64 {
    sum_over_groups(metric, x.ncols(), x.nrows(), scratch, |j, column| {
        column.copy_from_slice(x.column(j).as_slice());
    })
}

/// The sum over columns of length m that `write_column` gives.
fn sum_over_groups(
    metric: &Metric<'_>,
    columns: usize,
    m: usize,
    scratch: &mut GroupScratch<'_>,
    write_column: impl Fn(usize, &mut [f64]),
) -> f64 {
    let mut sum = 0.0;
    let mut first = 0;
    while first < columns {
        let len = GROUP.min(columns - first) * m;
        let (group, image) = (&mut scratch.group[..len], &mut scratch.image[..len]);
        for (column, j) in group.chunks_exact_mut(m).zip(first..) {
            write_column(j, column);
        }
        metric.apply(m, group, image);
        for (x, y) in group.chunks_exact(m).zip(image.chunks_exact(m)) {
            sum += dot(x, y);
        }
        first += GROUP;
    }
    sum
}
