//! Small and skinny f64 matrices: products and eigenpairs, by faer, on one core.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};
use nalgebra::DMatrixViewMut;
use qera_core::linalg::{jacobi_eigen, jacobi_eigen_workspace_len};

use crate::host::solve_error::SolveError;

/// The most sweeps of rotations; ten are usual.
const SWEEPS_MAX: usize = 60;

/// X Y, single-threaded.
pub(crate) fn product(x: MatRef<'_, f64>, y: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(x.nrows(), y.ncols());
    matmul(product.as_mut(), Accum::Replace, x, y, 1.0, Par::Seq);
    product
}

/// The squared length of each column. Sums run over eight numbers at a time; squares beyond f64 are
/// infinite or 0, which columns of numbers that were f32 products never are.
pub(crate) fn squared_lengths(x: &Mat<f64>) -> impl Iterator<Item = f64> {
    x.col_iter().map(|column| match column.try_as_col_major() {
        Some(column) => squared_length(column.as_slice()),
        None => column.squared_norm_l2(),
    })
}

fn squared_length(numbers: &[f64]) -> f64 {
    let (eights, rest) = numbers.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        for (sum, x) in sums.iter_mut().zip(eight) {
            *sum += x * x;
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|x| x * x).sum::<f64>()
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
    let symmetric = symmetric_part(g)?;
    let Ok(eigen) = symmetric.self_adjoint_eigen(Side::Lower) else {
        return by_rotations(&symmetric);
    };
    Ok(Eigenpairs {
        vectors: eigen.U().reverse_cols().to_owned(),
        values: (0..n).rev().map(|i| eigen.S()[i]).collect(),
    })
}

/// (G + G^T) / 2.
///
/// # Errors
/// [`SolveError`]: a number that is not finite.
pub(crate) fn symmetric_part(g: &Mat<f64>) -> Result<Mat<f64>, SolveError> {
    let n = g.nrows();
    let symmetric = Mat::from_fn(n, n, |i, j| 0.5 * (g[(i, j)] + g[(j, i)]));
    if symmetric.is_all_finite() {
        Ok(symmetric)
    } else {
        Err(SolveError::Overflow)
    }
}

/// Eigenpairs by Jacobi's rotations, which converge for every symmetric matrix but take some ten
/// times as long. They serve matrices on which divide and conquer gives up (few rows that are not
/// zero, far apart).
fn by_rotations(symmetric: &Mat<f64>) -> Result<Eigenpairs, SolveError> {
    let n = symmetric.nrows();
    let mut a: Vec<f64> = symmetric
        .col_iter()
        .flat_map(|column| column.iter().copied().collect::<Vec<_>>())
        .collect();
    let (mut values, mut vectors) = (vec![0.0; n], vec![0.0; n * n]);
    let mut workspace = vec![0.0; jacobi_eigen_workspace_len(n)];
    jacobi_eigen(
        DMatrixViewMut::from_slice(&mut a, n, n),
        &mut values,
        DMatrixViewMut::from_slice(&mut vectors, n, n),
        &mut workspace,
        SWEEPS_MAX,
    )
    .map_err(|_| SolveError::NoConvergence { n })?;
    let vectors = MatRef::from_column_major_slice(&vectors, n, n).to_owned();
    Ok(Eigenpairs { vectors, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use qera_core::pseudo_random::SplitMix64;

    /// Few rows and columns that are not zero, far apart: the shape that faer 0.24 gives up on for
    /// many seeds.
    #[test]
    fn scattered_matrices_have_eigenpairs() {
        const N: usize = 320;
        for seed in 0..6_u8 {
            let mut sequence = SplitMix64::new(seed.into());
            let places: Vec<usize> = (0..12)
                .map(|i| (i * 53 + 7 * usize::from(seed)) % N)
                .collect();
            let rows = Mat::from_fn(40, 12, |_, _| sequence.next_symmetric());
            let inner = rows.transpose() * &rows;
            let mut g = Mat::<f64>::zeros(N, N);
            for (i, &row) in places.iter().enumerate() {
                for (j, &column) in places.iter().enumerate() {
                    g[(row, column)] = inner[(i, j)];
                }
            }
            for found in [eigen(&g).unwrap(), by_rotations(&g).unwrap()] {
                let image = product(g.as_ref(), found.vectors.as_ref());
                let scaled = Mat::from_fn(N, N, |i, j| found.vectors[(i, j)] * found.values[j]);
                assert!((image - scaled).norm_max() < 1e-11 * found.values[0]);
                assert!(found.values.is_sorted_by(|x, y| x >= y));
            }
        }
    }
}
