//! Jacobi's method for symmetric matrices.

use proptest::prelude::*;
use qera_core::linalg::{
    JACOBI_MAX_SWEEPS, JacobiEigenError, jacobi_eigen, jacobi_eigen_workspace_len,
};
use qera_tests::matrix::Matrix;
use qera_tests::precision::{EIGEN_ORTHOGONALITY, EIGEN_REBUILD, EIGEN_VALUES, SVD_GRADED};
use qera_tests::spectra::{Spectrum, spectrum, symmetric, uniform};

use super::jacobi_svd::svd;
use super::{descending, oracle_eigenvalues, within};

/// Eigenvalues, the largest first, and the vectors to them.
#[derive(Debug, PartialEq)]
struct EigenPairs {
    values: Vec<f64>,
    vectors: Matrix,
}

fn eigen(a: &Matrix) -> Result<EigenPairs, JacobiEigenError> {
    let n = a.nrows();
    let (mut a, mut values, mut vectors) = (a.clone(), vec![0.0; n], Matrix::zeros(n, n));
    let mut workspace = vec![0.0; jacobi_eigen_workspace_len(n)];
    jacobi_eigen(
        a.view_mut(),
        &mut values,
        vectors.view_mut(),
        &mut workspace,
        JACOBI_MAX_SWEEPS,
    )?;
    Ok(EigenPairs { values, vectors })
}

fn check_eigen(a: &Matrix) {
    let (n, norm) = (a.nrows(), a.norm());
    let EigenPairs { values, vectors } = eigen(a).unwrap();
    let rebuilt = &(&vectors * &Matrix::diagonal(&values)) * &vectors.transpose();
    within((&rebuilt - a).norm(), EIGEN_REBUILD, n, norm);
    within(vectors.orthogonality_defect(), EIGEN_ORTHOGONALITY, n, 1.0);
    assert!(descending(&values));
    for (value, oracle) in values.iter().zip(oracle_eigenvalues(a)) {
        within((value - oracle).abs(), EIGEN_VALUES, n, norm);
    }
}

#[test]
fn eigen_rebuilds_every_spectrum() {
    for kind in Spectrum::ALL {
        for n in [1, 2, 3, 16, 61, 130] {
            check_eigen(&symmetric(&spectrum(kind, n), n as u64));
        }
    }
}

#[test]
fn eigen_takes_special_matrices() {
    for a in [
        Matrix::zeros(5, 5),
        Matrix::identity(7),
        Matrix::filled(6, 6, 1.0),
        Matrix::from_fn(4, 4, |i, j| if i + j == 3 { 1.0 } else { 0.0 }),
        symmetric(&spectrum(Spectrum::Flat, 9), 3).scale(1e300),
        symmetric(&spectrum(Spectrum::Flat, 9), 3).scale(1e-300),
    ] {
        check_eigen(&a);
    }
    let none = eigen(&Matrix::zeros(0, 0)).unwrap();
    assert!(none.values.is_empty());
}

/// `D B D` with a well-conditioned `B` has eigenvalues over sixteen decades; Jacobi gets each of
/// them to full relative accuracy (a tridiagonal method only relative to the largest).
#[test]
fn eigen_is_relatively_accurate_when_graded() {
    let n = 9;
    let b = symmetric(&spectrum(Spectrum::Flat, n), 5);
    let factor = b.to_faer().llt(faer::Side::Lower).unwrap();
    let factor = Matrix::from_faer(factor.L());
    let scale: Vec<f64> = (0..9).map(|i| 10.0_f64.powi(-i)).collect();
    let graded = Matrix::from_fn(n, n, |i, j| scale[i] * b[(i, j)] * scale[j]);
    let values = eigen(&graded).unwrap().values;
    let scaled = Matrix::from_fn(n, n, |i, j| factor[(j, i)] * scale[j]);
    let sigma = svd(&scaled).unwrap().sigma;
    for (value, sigma) in values.iter().zip(&sigma) {
        within((value - sigma * sigma).abs(), SVD_GRADED, n, *value);
    }
}

#[test]
fn eigen_refuses_by_value() {
    let mut a = Matrix::identity(3);
    a[(2, 1)] = f64::NAN;
    assert_eq!(
        eigen(&a),
        Err(JacobiEigenError::NonFinite { row: 2, column: 1 })
    );
    assert!(matches!(
        eigen(&Matrix::zeros(2, 3)),
        Err(JacobiEigenError::Shape(_))
    ));

    let run = |values: usize, workspace: usize, sweeps: usize| {
        let mut a = symmetric(&[3.0, 2.0, 1.0], 1);
        jacobi_eigen(
            a.view_mut(),
            &mut vec![0.0; values],
            Matrix::zeros(3, 3).view_mut(),
            &mut vec![0.0; workspace],
            sweeps,
        )
    };
    assert!(run(3, 6, 40).is_ok());
    assert!(matches!(run(2, 6, 40), Err(JacobiEigenError::Shape(_))));
    assert!(matches!(run(3, 5, 40), Err(JacobiEigenError::Workspace(_))));
    assert!(matches!(
        run(3, 6, 1),
        Err(JacobiEigenError::NoConvergence { sweeps: 1, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn eigen_holds_for_any_matrix(n in 1_usize..24, seed in any::<u64>(), exponent in -40_i32..40) {
        check_eigen(&uniform(n, n, seed).scale(2.0_f64.powi(exponent)).symmetrised());
    }
}
