//! From a quantization error and a statistic of the inputs to the low-rank term that repairs most
//! of the output.
//!
//! With `E = W - W~` (m x n), `R = E[x^T x]` and a rank k, find `A` (m x k) and `B` (k x n) that
//! make `f = tr(R P P^T)`, `P = E - A B`, small: the expected squared error of the layer's output
//! (problem 2 of the QERA paper).
//!
//! - [`Problem`] is what is known, checked once. [`Method`] names the ways to solve it. [`Report`]
//!   says what was achieved.
//! - [`reconstruct`] solves it by any method, by projection: no square root, no inverse, finite for
//!   every input. [`reconstruct_exact`] is theorem 1; [`projection`] derives it, [`scaled`] the
//!   others.
//! - [`reconstruct_whitened`] is the paper's own route through `R^{1/2}` and a full SVD: what its
//!   reader looks for, and the independent check of the projection. Both give the same `C` wherever
//!   `R` is invertible.
//! - [`reconstruct_sketched`] needs no `R` and holds no `E`: it takes the directions from a sketch
//!   of the output errors, [`ErrorSketch`](crate::statistics::ErrorSketch).
//! - [`reconstruct_narrow`] is theorem 1 for devices: in f32, E streamed, no array of its size.
//! - [`output_error`] measures `f` for any factors, for example after they were rounded.
//!
//! ```
//! use nalgebra::{DMatrixView, DMatrixViewMut};
//! use qera_core::reconstruct::{Method, Problem, Statistic, reconstruct, reconstruct_workspace_len};
//!
//! const M: usize = 3; // in_features
//! const N: usize = 2; // out_features
//! let error = [0.1, -0.2, 0.0, 0.3, 0.1, -0.1];
//! let autocorrelation = [2.0, 0.5, 0.0, 1.0, 0.1, 0.5]; // packed upper triangle
//! let problem = Problem::new(
//!     DMatrixView::from_slice(&error, M, N),
//!     Statistic::Autocorrelation(&autocorrelation),
//!     1,
//! )?;
//! let mut workspace = [0.0; reconstruct_workspace_len(M, N, 1)];
//! let mut errors = [0.0; 2];
//! for (method, error) in [Method::Exact, Method::ZeroQuantV2].into_iter().zip(&mut errors) {
//!     let (mut a, mut b) = ([0.0; M], [0.0; N]);
//!     let report = reconstruct(
//!         method,
//!         &problem,
//!         DMatrixViewMut::from_slice(&mut a, M, 1),
//!         DMatrixViewMut::from_slice(&mut b, 1, N),
//!         &mut [],
//!         &mut workspace,
//!     )?;
//!     *error = report.error_with;
//! }
//! assert!(errors[0] <= errors[1]);
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod method;
mod metric;
pub mod narrow;
pub mod objective;
mod problem;
pub mod projection;
mod report;
pub mod scaled;
pub mod sketched;
pub mod whitened;

use nalgebra::DMatrixViewMut;

pub use method::{Method, StatisticKind};
#[doc(inline)]
pub use narrow::{
    NarrowError, NarrowProblem, NarrowReport, NarrowRoom, narrow_columns_len, narrow_workspace_len,
    reconstruct_narrow,
};
#[doc(inline)]
pub use objective::{OutputErrorError, output_error, output_error_workspace_len};
pub use problem::{Problem, ProblemError, Statistic};
#[doc(inline)]
pub use projection::{ReconstructError, reconstruct_exact, reconstruct_workspace_len};
pub use report::Report;
#[doc(inline)]
pub use sketched::{
    Shrinkage, SketchedError, SketchedReport, reconstruct_sketched, reconstruct_sketched_shrunk,
    sketched_workspace_len,
};
#[doc(inline)]
pub use whitened::{RootMethod, WhitenedError, reconstruct_whitened, whitened_workspace_len};

/// Reconstructs by any method: the solve is the method's, the report is under the problem's own
/// statistic.
///
/// # Shapes
/// As [`reconstruct_exact`]. The spectrum is that of the method's own `E^T S^2 E`;
/// [`Method::WeightOnly`] has none and leaves `spectrum` as it is.
///
/// # Workspace
/// [`reconstruct_workspace_len`]`(m, n, k)`, whatever the method.
///
/// # Errors
/// [`ReconstructError::MissingScale`] for the two LQER methods without [`Problem::with_scale`];
/// otherwise as [`reconstruct_exact`].
///
/// # Numerics
/// The error is never above that without correction, under any statistic, before the factors are
/// rounded.
///
/// # Determinism
/// As [`reconstruct_exact`].
///
/// # References
/// QERA paper (ICLR 2025), theorems 1 and 2 and algorithm 2; `scaled.rs` has the table of methods.
///
/// # Example
/// ```
/// use nalgebra::{DMatrixView, DMatrixViewMut};
/// use qera_core::reconstruct::{Method, Problem, Statistic, reconstruct, reconstruct_workspace_len};
///
/// let error = [1.0, 0.0, 0.0, 2.0]; // diag(1, 2)
/// let problem = Problem::new(DMatrixView::from_slice(&error, 2, 2), Statistic::Diagonal(&[9.0, 1.0]), 1)?;
/// let (mut a, mut b) = ([0.0; 2], [0.0; 2]);
/// let mut workspace = [0.0; reconstruct_workspace_len(2, 2, 1)];
/// let report = reconstruct(
///     Method::ZeroQuantV2,
///     &problem,
///     DMatrixViewMut::from_slice(&mut a, 2, 1),
///     DMatrixViewMut::from_slice(&mut b, 1, 2),
///     &mut [],
///     &mut workspace,
/// )?;
/// // It repairs the larger weight error, which matters less: 9 of 13 are left.
/// assert_eq!((report.error_without, report.error_with), (13.0, 9.0));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn reconstruct(
    method: Method,
    problem: &Problem<'_>,
    a: DMatrixViewMut<'_, f64>,
    b: DMatrixViewMut<'_, f64>,
    spectrum: &mut [f64],
    workspace: &mut [f64],
) -> Result<Report, ReconstructError> {
    let metric = scaled::metric_of(method, problem)?;
    projection::project(problem, metric, a, b, spectrum, workspace)
}
