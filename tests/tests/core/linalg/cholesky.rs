//! The factor rebuilds its matrix; what has none is named.

use qera_core::linalg::{CholeskyError, Shape, ShapeMismatch, cholesky};
use qera_tests::matrix::Matrix;
use qera_tests::precision::CHOLESKY_REBUILD;
use qera_tests::spectra::symmetric;

use super::within;

#[test]
fn factors_rebuild_the_matrix() {
    for n in [1, 2, 5, 40, 96] {
        for decades in [0.0, 3.0, 6.0, 11.0] {
            let values: Vec<f64> = (0..n)
                .map(|i| 3.0 * 10.0_f64.powf(-decades * i as f64 / n.max(2) as f64))
                .collect();
            let a = symmetric(&values, n as u64);
            // The upper triangle is nobody's.
            let mut factor = Matrix::from_fn(n, n, |i, j| if i < j { f64::NAN } else { a[(i, j)] });
            cholesky(factor.view_mut()).unwrap();
            let lower = Matrix::from_fn(n, n, |i, j| if i < j { 0.0 } else { factor[(i, j)] });
            assert!((0..n).all(|i| factor[(i, i)] > 0.0));
            assert!((0..n).all(|j| (0..j).all(|i| factor[(i, j)].is_nan())));
            let error = (&(&lower * &lower.transpose()) - &a).norm();
            within(error, CHOLESKY_REBUILD, n, a.norm());
        }
    }
    let nothing = cholesky(Matrix::zeros(0, 0).view_mut());
    assert_eq!(nothing, Ok(()));
}

#[test]
fn what_is_not_positive_definite_is_named_by_its_pivot() {
    let refused = |mut a: Matrix| cholesky(a.view_mut());
    let pivot = |index, value| Err(CholeskyError::Pivot { index, value });
    assert_eq!(refused(Matrix::from_rows(&[[0.0]])), pivot(0, 0.0));
    let indefinite = [[4.0, 2.0, 0.0], [2.0, 5.0, 4.0], [0.0, 4.0, 1.0]];
    assert_eq!(refused(Matrix::from_rows(&indefinite)), pivot(2, -3.0));
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for place in [(1, 0), (1, 1)] {
            let mut a = Matrix::identity(3);
            a[place] = bad;
            let found = refused(a);
            assert!(
                matches!(found, Err(CholeskyError::Pivot { index: 1, .. })),
                "{found:?} for {bad} at {place:?}"
            );
        }
    }
    let shape = |rows, columns| Shape { rows, columns };
    let mismatch = ShapeMismatch {
        operand: "a",
        expected: shape(2, 2),
        got: shape(2, 3),
    };
    let error = refused(Matrix::zeros(2, 3)).unwrap_err();
    assert_eq!(error, CholeskyError::Shape(mismatch));
    let error = CholeskyError::Pivot {
        index: 2,
        value: -3.0,
    };
    assert_eq!(
        error.to_string(),
        "pivot 2 is -3e0: the matrix is not positive definite"
    );
}
