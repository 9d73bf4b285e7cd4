//! Reconstruction from a sketch of the output errors, which needs no `R` and never the whole of
//! `E`.
//!
//! **Derivation.** `C = E V V^T` with `V` the leading eigenvectors of `G = E^T R E`, and the sketch
//! `S` has `S^T S` in the place of `G`, at most `Delta` below it in any direction
//! ([`ErrorSketch`]). Its rows are orthogonal, so that `V` are the leading ones, normalised, and
//! `A = E V` takes one pass over the columns of `E`.
//!
//! **Shrinkage.** `R_a = (1 - a) R + a diag(R)` needs the diagonal of `R` beside the sketch, `m`
//! numbers, and becomes an operator in the place of `G`:
//!
//! ```text
//! G_a X = (1 - a) S^T (S X) + a E^T (diag(R) (E X)),
//! ```
//!
//! whose leading eigenvectors are found by [`block_krylov()`]. It asks for every column of `E`
//! twice for each eight columns applied, so it is for hosts, and for layers whose `E` is cheap to
//! make.
//!
//! **What it achieves** is not measured: that would take `R`. `f` lies within the interval that the
//! sketch gives, which for `a > 0` is no longer that of the optimum alone; with orthonormal `V` it
//! is never above `tr(G)`, the error without a correction.

use core::fmt;

use nalgebra::{DMatrixView, DMatrixViewMut};

use crate::linalg::{
    BlockKrylovError, BlockKrylovOptions, ShapeMismatch, Workspace, WorkspaceTooSmall,
    block_krylov, block_krylov_kept, block_krylov_workspace_len, expect_length, expect_matrix,
    from_lent,
};
use crate::statistics::{ErrorSketch, SketchError};

/// Columns that share one pass over `E`.
const GROUP: usize = 8;

/// Why a reconstruction from a sketch failed. The factors then hold nothing of use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SketchedError {
    /// A lent factor, or the diagonal, does not fit the sketch.
    Shape(ShapeMismatch),
    /// The workspace is too short.
    Workspace(WorkspaceTooSmall),
    /// The room for columns of `E` holds not a single one.
    Columns {
        /// How many numbers a column has.
        needed: usize,
        /// How many numbers were lent.
        lent: usize,
    },
    /// The sketch gave no directions.
    Directions(SketchError),
    /// The eigenvectors of `G_a` were not found.
    Eigenvectors(BlockKrylovError),
}

impl fmt::Display for SketchedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(shape) => shape.fmt(f),
            Self::Workspace(workspace) => workspace.fmt(f),
            Self::Columns { needed, lent } => write!(
                f,
                "a column of E has {needed} numbers, there is room for {lent}"
            ),
            Self::Directions(error) => error.fmt(f),
            Self::Eigenvectors(error) => write!(f, "eigenvectors of G: {error}"),
        }
    }
}

impl core::error::Error for SketchedError {}

from_lent!(SketchedError);

/// What is known of a reconstruction from a sketch. All errors are expectations over the rows seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SketchedReport {
    /// `tr(G)`: the expected squared output error with no correction, exact.
    pub error_without: f64,
    /// The least that the error can be with the correction, before its factors are rounded.
    pub error_least: f64,
    /// The most that the error can be with the correction, before its factors are rounded.
    pub error_most: f64,
    /// Columns of `A` and rows of `B` that are used; the others are exact zeros.
    pub rank_used: usize,
}

/// How far `R` is shrunk toward its diagonal.
#[derive(Clone, Copy, Debug)]
pub struct Shrinkage<'a> {
    /// `diag(R)`, `E[x_i^2]` of each channel over the rows that the sketch has seen.
    pub diagonal: &'a [f64],
    /// The share `a` of the diagonal, clamped to 0 (the sketch alone) to 1 (QERA-approx).
    pub share: f64,
}

/// QERA-exact from a sketch: `A = E V`, `B = V^T`.
///
/// # Shapes
/// | argument | shape | |
/// |---|---|---|
/// | `sketch` | rows of n | |
/// | `error` | | fills whole columns of `E`, m numbers each, from the one asked for on |
/// | `columns` | m c, c >= 1 | room for columns of `E` |
/// | `a` | m x k | out: `E V` |
/// | `b` | k x n | out: `V^T`, orthonormal rows |
///
/// # Errors
/// [`SketchedError::Shape`] and [`SketchedError::Columns`], before anything is written.
///
/// # Numerics
/// The error that is left is within [`ErrorSketch::optimum`] of this rank. A rank above the rows of
/// the sketch gives zeros in the columns beyond.
///
/// # Determinism
/// Fixed order; the sign of each pair of column and row is free.
///
/// # References
/// QERA paper (ICLR 2025), theorem 1; Ghashami, Liberty, Phillips and Woodruff, SIAM J. Comput. 45
/// (2016), for what the sketch loses.
///
/// # Example
/// ```
/// use nalgebra::DMatrixViewMut;
/// use qera_core::reconstruct::{SketchedError, SketchedReport, reconstruct_sketched};
/// use qera_core::rows::Rows;
/// use qera_core::statistics::{ErrorSketch, SketchRoom, error_sketch_workspace_len};
///
/// const M: usize = 2;
/// let mut error = |first: usize, columns: &mut [f32]| {
///     columns.copy_from_slice(&[1.0, 0.0, 0.0, 1.0][first * M..][..columns.len()]) // E = I
/// };
/// let (mut state, mut errors, mut columns) = ([0.0; M], [0.0; M], [0.0; M]);
/// let mut workspace = [0.0; error_sketch_workspace_len(1, 1)];
/// let mut sketch = ErrorSketch::new(&mut state, M)?;
/// let mut room = SketchRoom { errors: &mut errors, columns: &mut columns, workspace: &mut workspace };
/// sketch.update(&Rows::new(&[4.0, 0.0, 0.0, 1.0], M)?, &mut error, &mut room)?;
///
/// let (mut a, mut b) = ([0.0; M], [0.0; M]);
/// let mut solve = |columns: &mut [f32]| {
///     let a = DMatrixViewMut::from_slice(&mut a, M, 1);
///     let b = DMatrixViewMut::from_slice(&mut b, 1, M);
///     reconstruct_sketched(&sketch, &mut error, columns, a, b)
/// };
/// assert_eq!(solve(&mut []), Err(SketchedError::Columns { needed: M, lent: 0 }));
/// let SketchedReport { error_without, error_least, error_most, .. } = solve(&mut columns)?;
/// // The louder channel is repaired, the quiet one's error of 1 / 2 is left.
/// assert_eq!(a.map(f64::abs), [1.0, 0.0]);
/// assert_eq!(error_without, 8.5);
/// assert!(error_least <= 0.5 && 0.5 <= error_most);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn reconstruct_sketched(
    sketch: &ErrorSketch<'_>,
    error: &mut impl FnMut(usize, &mut [f32]),
    columns: &mut [f32],
    mut a: DMatrixViewMut<'_, f64>,
    mut b: DMatrixViewMut<'_, f64>,
) -> Result<SketchedReport, SketchedError> {
    let mut streamed = Streamed::new(error, columns, a.nrows())?;
    expect_matrix("b", &b, a.ncols(), sketch.out_features())?;
    let used = sketch
        .finish(b.as_view_mut())
        .map_err(SketchedError::Directions)?;
    streamed.write_a(&b.as_view(), used, &mut a);
    Ok(report(sketch, &b.as_view(), used))
}

/// Number of `f64` that [`reconstruct_sketched_shrunk`] needs: `8 m + kept + n (kept + k)` and
/// [`block_krylov_workspace_len`]`(n, k)`, with `kept = min(k + 8, n)` and the `k` of
/// `min(rank, n)`.
#[must_use]
pub const fn sketched_workspace_len(in_features: usize, out_features: usize, rank: usize) -> usize {
    let wanted = if rank < out_features {
        rank
    } else {
        out_features
    };
    let kept = block_krylov_kept(out_features, wanted);
    in_features
        .saturating_mul(GROUP)
        .saturating_add(kept)
        .saturating_add(out_features.saturating_mul(kept))
        .saturating_add(block_krylov_workspace_len(out_features, wanted))
}

/// QERA-exact from a sketch under a shrunk `R`: `V` are the leading eigenvectors of `G_a`.
///
/// # Shapes
/// As [`reconstruct_sketched`]; the diagonal has m numbers.
///
/// # Workspace
/// [`sketched_workspace_len`]`(m, n, k)`.
///
/// # Errors
/// [`SketchedError`]; shapes and lengths are checked before anything is computed.
///
/// # Numerics
/// As [`block_krylov()`]. The interval of the report is that of `V` under `R` itself:
/// `[tr(G) - tr(V^T S^T S V) - k Delta, tr(G) - tr(V^T S^T S V)]`.
///
/// # Determinism
/// See [`block_krylov()`].
///
/// # References
/// Ledoit and Wolf, J. Multivariate Anal. 88 (2004), for shrinkage toward a structured target.
///
/// # Example
/// ```
/// use nalgebra::DMatrixViewMut;
/// use qera_core::reconstruct::{Shrinkage, reconstruct_sketched_shrunk, sketched_workspace_len};
/// use qera_core::statistics::{ErrorSketch, SketchTotals};
///
/// const M: usize = 2;
/// let mut error = |first: usize, columns: &mut [f32]| {
///     columns.copy_from_slice(&[1.0, 0.0, 0.0, 1.0][first * M..][..columns.len()]) // E = I
/// };
/// // Rows (2, 2) and (1, -1) give d = x and G = [[2.5, 1.5], [1.5, 2.5]], eigenvalues 4 and 1.
/// let half = 0.5_f32.sqrt();
/// let mut state = [2.0 * half, 2.0 * half, half, -half];
/// let totals = SketchTotals { weight: 2.0, trace: 5.0, shrunk: 0.0 };
/// let sketch = ErrorSketch::resume(&mut state, M, totals)?;
/// let (mut a, mut b, mut columns) = ([0.0; M], [0.0; M], [0.0; M]);
/// let mut workspace = [0.0; sketched_workspace_len(M, M, 1)];
/// let report = reconstruct_sketched_shrunk(
///     &sketch,
///     Shrinkage { diagonal: &[2.5, 2.5], share: 0.1 },
///     &mut error,
///     &mut columns,
///     DMatrixViewMut::from_slice(&mut a, M, 1),
///     DMatrixViewMut::from_slice(&mut b, 1, M),
///     &mut workspace,
/// )?;
/// // G_a = [[2.5, 1.35], [1.35, 2.5]] has the same eigenvectors: what is left is the smaller value.
/// assert!((report.error_most - 1.0).abs() < 1e-6 && (a[0] - a[1]).abs() < 1e-6);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn reconstruct_sketched_shrunk(
    sketch: &ErrorSketch<'_>,
    shrinkage: Shrinkage<'_>,
    error: &mut impl FnMut(usize, &mut [f32]),
    columns: &mut [f32],
    mut a: DMatrixViewMut<'_, f64>,
    mut b: DMatrixViewMut<'_, f64>,
    workspace: &mut [f64],
) -> Result<SketchedReport, SketchedError> {
    let ((m, rank), n) = (a.shape(), sketch.out_features());
    let mut streamed = Streamed::new(error, columns, m)?;
    expect_matrix("b", &b, rank, n)?;
    expect_length("diagonal", shrinkage.diagonal, m)?;
    let mut workspace = Workspace::new(workspace, sketched_workspace_len(m, n, rank))?;
    let wanted = rank.min(n);
    let kept = block_krylov_kept(n, wanted);
    let group = workspace.take(m * GROUP);
    let values = workspace.take(kept);
    let mut vectors = DMatrixViewMut::from_slice(workspace.take(n * kept), n, kept);
    let krylov = workspace.take(block_krylov_workspace_len(n, wanted));
    b.fill(0.0);
    let share = shrinkage.share.clamp(0.0, 1.0);
    block_krylov(
        |x, mut y| {
            y.fill(0.0);
            add_sketched(sketch, 1.0 - share, &x, &mut y);
            if share > 0.0 {
                streamed.add_on_diagonal(shrinkage.diagonal, share, &x, &mut y, group);
            }
        },
        wanted,
        &BlockKrylovOptions::default(),
        None,
        values,
        vectors.as_view_mut(),
        krylov,
    )
    .map_err(SketchedError::Eigenvectors)?;
    let noise = m.max(n) as f64 * f64::EPSILON * values.first().map_or(0.0, |value| value.max(0.0));
    let used = values
        .iter()
        .take(wanted)
        .take_while(|value| **value > noise)
        .count();
    for (r, vector) in vectors.column_iter().take(used).enumerate() {
        for (j, value) in vector.as_slice().iter().enumerate() {
            b[(r, j)] = *value;
        }
    }
    streamed.write_a(&b.as_view(), used, &mut a);
    Ok(report(sketch, &b.as_view(), used))
}

/// The error interval of a correction whose directions are the first `used` rows of `b`.
fn report(sketch: &ErrorSketch<'_>, b: &DMatrixView<'_, f64>, used: usize) -> SketchedReport {
    let n = sketch.out_features();
    let mut captured = 0.0;
    for row in sketch.rows().chunks_exact(n) {
        for r in 0..used {
            let along: f64 = (0..n).map(|j| f64::from(row[j]) * b[(r, j)]).sum();
            captured += along * along;
        }
    }
    let totals = sketch.totals();
    let error_most = (totals.trace - captured).max(0.0);
    SketchedReport {
        error_without: totals.trace,
        error_least: (error_most - used as f64 * totals.shrunk).max(0.0),
        error_most,
        rank_used: used,
    }
}

/// `Y += share S^T (S X)`.
fn add_sketched(
    sketch: &ErrorSketch<'_>,
    share: f64,
    x: &DMatrixView<'_, f64>,
    y: &mut DMatrixViewMut<'_, f64>,
) {
    for row in sketch.rows().chunks_exact(sketch.out_features()) {
        for (x, mut y) in x.column_iter().zip(y.column_iter_mut()) {
            let along: f64 = row
                .iter()
                .zip(x.as_slice())
                .map(|(s, x)| f64::from(*s) * x)
                .sum();
            let step = share * along;
            for (y, s) in y.as_mut_slice().iter_mut().zip(row) {
                *y += step * f64::from(*s);
            }
        }
    }
}

/// The error `E`, which comes by columns.
struct Streamed<'a, F> {
    error: &'a mut F,
    columns: &'a mut [f32],
    in_features: usize,
}

impl<'a, F: FnMut(usize, &mut [f32])> Streamed<'a, F> {
    fn new(
        error: &'a mut F,
        columns: &'a mut [f32],
        in_features: usize,
    ) -> Result<Self, SketchedError> {
        if in_features == 0 || columns.len() < in_features {
            return Err(SketchedError::Columns {
                needed: in_features.max(1),
                lent: columns.len(),
            });
        }
        Ok(Self {
            error,
            columns,
            in_features,
        })
    }

    /// Shows each of the first `n` columns to `see`, in order.
    fn each(&mut self, n: usize, mut see: impl FnMut(usize, &[f32])) {
        let m = self.in_features;
        let at_once = self.columns.len() / m;
        for first in (0..n).step_by(at_once) {
            let columns = &mut self.columns[..at_once.min(n - first) * m];
            (self.error)(first, columns);
            for (j, column) in columns.chunks_exact(m).enumerate() {
                see(first + j, column);
            }
        }
    }

    /// `A = E V`, `V^T` being the first `used` rows of `b`.
    fn write_a(&mut self, b: &DMatrixView<'_, f64>, used: usize, a: &mut DMatrixViewMut<'_, f64>) {
        a.fill(0.0);
        self.each(b.ncols(), |j, column| {
            for r in 0..used {
                let share = b[(r, j)];
                for (to, e) in a.column_mut(r).as_mut_slice().iter_mut().zip(column) {
                    *to += share * f64::from(*e);
                }
            }
        });
    }

    /// `Y += share E^T (diag(R) (E X))`, a few columns of `X` at a time.
    fn add_on_diagonal(
        &mut self,
        diagonal: &[f64],
        share: f64,
        x: &DMatrixView<'_, f64>,
        y: &mut DMatrixViewMut<'_, f64>,
        group: &mut [f64],
    ) {
        let (m, n) = (self.in_features, x.nrows());
        for first in (0..x.ncols()).step_by(GROUP) {
            let count = GROUP.min(x.ncols() - first);
            let group = &mut group[..count * m];
            group.fill(0.0);
            self.each(n, |j, column| {
                for (c, image) in group.chunks_exact_mut(m).enumerate() {
                    let x = x[(j, first + c)];
                    for (to, e) in image.iter_mut().zip(column) {
                        *to += x * f64::from(*e);
                    }
                }
            });
            for image in group.chunks_exact_mut(m) {
                for (value, d) in image.iter_mut().zip(diagonal) {
                    *value *= share * d;
                }
            }
            self.each(n, |j, column| {
                for (c, image) in group.chunks_exact(m).enumerate() {
                    let sum: f64 = column
                        .iter()
                        .zip(image)
                        .map(|(e, t)| f64::from(*e) * t)
                        .sum();
                    y[(j, first + c)] += sum;
                }
            });
        }
    }
}
