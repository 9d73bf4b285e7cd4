//! The A that rounding begins with: top eigenvectors of R_a, which is what a layer's input has most
//! of, whatever the layer's error will be.
//!
//! Subspace iteration from a fixed start; a beginning need not be exact (on real layers the result
//! was the same to three digits from four rounds on). Cost: 2 m^2 flops a column and round.

use faer::Mat;

use crate::host::dense::{Eigenpairs, eigen, product};
use crate::host::second_moment::metric::Metric;
use crate::host::solve_error::SolveError;
use crate::host::subspace::basis::{orthonormalise, start};
use crate::host::transpose::transposed;

/// Columns beyond the rank.
const SPARE: usize = 8;
const ROUNDS: usize = 6;

/// Columns that come close to the `k` top eigenvectors of S, m x k; fewer where S has fewer.
///
/// # Errors
/// [`SolveError`]: products overflow.
pub(crate) fn top_directions(metric: &Metric<'_>, k: usize) -> Result<Mat<f64>, SolveError> {
    let m = metric.diagonal().len();
    let width = (k + SPARE).min(m);
    let mut basis = start(m, width);
    let nothing = Mat::zeros(m, 0);
    for _ in 0..ROUNDS {
        let image = metric.apply_f32(transposed(basis.as_ref()));
        basis = orthonormalise(transposed(image.as_ref()), nothing.as_ref(), width);
    }
    let image = metric.apply_f32(transposed(basis.as_ref()));
    let Eigenpairs { vectors, .. } = eigen(&product(basis.transpose(), image.transpose()))?;
    let count = k.min(vectors.ncols());
    Ok(product(basis.as_ref(), vectors.subcols(0, count)))
}
