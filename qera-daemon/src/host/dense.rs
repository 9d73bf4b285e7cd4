//! Small and skinny f64 matrices: products and eigenpairs, by faer, on one core.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};

use crate::host::solve_error::SolveError;

/// X Y, single-threaded.
pub(crate) fn product(x: MatRef<'_, f64>, y: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(x.nrows(), y.ncols());
    matmul(product.as_mut(), Accum::Replace, x, y, 1.0, Par::Seq);
    product
}

/// Eigenvectors, by columns, and their eigenvalues, largest first.
#[derive(Debug)]
pub(crate) struct Eigenpairs {
    pub(crate) vectors: Mat<f64>,
    pub(crate) values: Vec<f64>,
}

/// Eigenpairs of the symmetric part.
///
/// # Errors
/// [`SolveError`]: a number that is not finite, or no convergence.
pub(crate) fn eigen(g: &Mat<f64>) -> Result<Eigenpairs, SolveError> {
    let n = g.nrows();
    if n == 0 {
        return Ok(Eigenpairs {
            vectors: Mat::new(),
            values: Vec::new(),
        });
    }
    let symmetric = Mat::from_fn(n, n, |i, j| 0.5 * (g[(i, j)] + g[(j, i)]));
    if (0..n).any(|j| (0..n).any(|i| !symmetric[(i, j)].is_finite())) {
        return Err(SolveError::Overflow);
    }
    let eigen = symmetric
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| SolveError::NoConvergence { n })?;
    Ok(Eigenpairs {
        vectors: eigen.U().reverse_cols().to_owned(),
        values: (0..n).rev().map(|i| eigen.S()[i]).collect(),
    })
}
