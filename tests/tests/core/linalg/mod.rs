//! Properties of the decompositions, against an independent oracle (faer) and against themselves,
//! on spectra that break careless code.

mod block_krylov;
mod cholesky;
mod jacobi_eigen;
mod jacobi_svd;
mod newton_schulz;

use qera_tests::matrix::Matrix;
use qera_tests::precision::allowed;

fn descending(values: &[f64]) -> bool {
    values.windows(2).all(|pair| pair[0] >= pair[1])
}

#[track_caller]
fn within(error: f64, units: f64, n: usize, norm: f64) {
    let bound = allowed(units, n, norm);
    assert!(
        error <= bound,
        "{error:e} is {:.2} units of n eps norm, {units} are allowed",
        units * error / bound
    );
}

/// The largest first.
fn oracle_eigenvalues(a: &Matrix) -> Vec<f64> {
    let mut values = a
        .to_faer()
        .self_adjoint_eigenvalues(faer::Side::Lower)
        .unwrap();
    values.reverse();
    values
}
