//! Jacobi's method for singular values.

use proptest::prelude::*;
use qera_core::linalg::{
    JACOBI_MAX_SWEEPS, JacobiSvdError, JacobiSvdReport, jacobi_svd, jacobi_svd_workspace_len,
};
use qera_tests::matrix::Matrix;
use qera_tests::precision::{SVD_GRADED, SVD_ORTHOGONALITY, SVD_REBUILD, SVD_VALUES};
use qera_tests::spectra::{Spectrum, orthonormal, spectrum, symmetric, uniform};

use super::{descending, within};

/// `U diag(sigma) V^T`.
#[derive(Debug)]
pub(super) struct SingularValues {
    u: Matrix,
    pub(super) sigma: Vec<f64>,
    v: Matrix,
    report: JacobiSvdReport,
}

pub(super) fn svd(a: &Matrix) -> Result<SingularValues, JacobiSvdError> {
    let columns = a.ncols();
    let (mut u, mut sigma) = (a.clone(), vec![0.0; columns]);
    let mut v = Matrix::zeros(columns, columns);
    let mut workspace = vec![0.0; jacobi_svd_workspace_len(columns)];
    let report = jacobi_svd(
        u.view_mut(),
        &mut sigma,
        v.view_mut(),
        &mut workspace,
        JACOBI_MAX_SWEEPS,
    )?;
    Ok(SingularValues {
        u,
        sigma,
        v,
        report,
    })
}

fn check_svd(a: &Matrix) {
    let (n, norm) = (a.nrows(), a.norm());
    let SingularValues {
        u,
        sigma,
        v,
        report,
    } = svd(a).unwrap();
    let rebuilt = &(&u * &Matrix::diagonal(&sigma)) * &v.transpose();
    within((&rebuilt - a).norm(), SVD_REBUILD, n, norm);
    within(v.orthogonality_defect(), SVD_ORTHOGONALITY, n, 1.0);
    // U is a partial isometry: orthonormal where a singular value is not zero, zero where it is.
    let used = report.nonzero;
    within(
        u.leading(used).orthogonality_defect(),
        SVD_ORTHOGONALITY,
        n,
        1.0,
    );
    assert!(u.as_slice()[used * n..].iter().all(|x| *x == 0.0));
    assert!(descending(&sigma) && sigma.iter().all(|x| *x >= 0.0));
    // The oracle does not scale, so it gets the matrix at norm 1.
    let unit = a.scale(if norm > 0.0 { 1.0 / norm } else { 1.0 });
    for (value, oracle) in sigma.iter().zip(unit.to_faer().singular_values().unwrap()) {
        let oracle = oracle * norm;
        within((value - oracle).abs(), SVD_VALUES, n, norm);
    }
}

#[test]
fn svd_rebuilds_every_spectrum() {
    for kind in Spectrum::SEMI_DEFINITE {
        for (rows, columns) in [(1, 1), (3, 2), (17, 17), (90, 40), (64, 64)] {
            let (left, right) = (
                orthonormal(rows, columns, 7),
                orthonormal(columns, columns, 8),
            );
            let sigma = Matrix::diagonal(&spectrum(kind, columns));
            check_svd(&(&(&left * &sigma) * &right.transpose()));
        }
    }
}

#[test]
fn svd_takes_special_matrices() {
    for a in [
        Matrix::zeros(5, 3),
        Matrix::filled(6, 4, 2.0),
        Matrix::identity(4).scale(1e-300),
        uniform(5, 5, 1).scale(1e300),
    ] {
        check_svd(&a);
    }
    assert_eq!(svd(&Matrix::zeros(5, 3)).unwrap().report.nonzero, 0);
}

/// Columns scaled over 150 decades: every singular value keeps its digits. The reference is the
/// same product of orthogonal and triangular factors, whose determinant and largest value are
/// known.
#[test]
fn svd_is_relatively_accurate_with_graded_columns() {
    let n = 6;
    let b = symmetric(&spectrum(Spectrum::Flat, n), 11);
    let plain = svd(&b).unwrap().sigma;
    let scale: Vec<f64> = (0..6).map(|j| 2.0_f64.powi(-100 * j)).collect();
    let scaled = Matrix::from_fn(n, n, |i, j| b[(i, j)] * scale[j]);
    let sigma = svd(&scaled).unwrap().sigma;
    // The product of the singular values is |det|, and powers of two scale it exactly.
    let product: f64 = sigma.iter().zip(&scale).map(|(s, d)| s / d).product();
    let expected: f64 = plain.iter().product();
    within((product - expected).abs(), SVD_GRADED, n, expected);
}

#[test]
fn svd_refuses_by_value() {
    assert_eq!(
        svd(&Matrix::zeros(2, 3)).unwrap_err(),
        JacobiSvdError::Wide {
            rows: 2,
            columns: 3
        }
    );
    let mut a = Matrix::zeros(3, 2);
    a[(1, 1)] = f64::INFINITY;
    assert_eq!(
        svd(&a).unwrap_err(),
        JacobiSvdError::NonFinite { row: 1, column: 1 }
    );

    let run = |sigma: usize, workspace: usize, sweeps: usize| {
        jacobi_svd(
            uniform(4, 3, 2).view_mut(),
            &mut vec![0.0; sigma],
            Matrix::zeros(3, 3).view_mut(),
            &mut vec![0.0; workspace],
            sweeps,
        )
    };
    assert!(run(3, 3, 40).is_ok());
    assert!(matches!(run(2, 3, 40), Err(JacobiSvdError::Shape(_))));
    assert!(matches!(run(3, 2, 40), Err(JacobiSvdError::Workspace(_))));
    assert!(matches!(
        run(3, 3, 1),
        Err(JacobiSvdError::NoConvergence { sweeps: 1, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn svd_holds_for_any_matrix(columns in 1_usize..16, extra in 0_usize..16, seed in any::<u64>(), zeroed in 0_usize..4) {
        let mut a = uniform(columns + extra, columns, seed);
        for j in 0..zeroed.min(columns) {
            a.view_mut().column_mut(j).fill(0.0);
        }
        check_svd(&a);
    }
}
