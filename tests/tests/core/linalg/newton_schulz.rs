//! Newton-Schulz: the square root and its inverse.

use qera_core::linalg::{
    NewtonSchulzError, NewtonSchulzLimits, NewtonSchulzReport, newton_schulz,
    newton_schulz_workspace_len,
};
use qera_tests::matrix::Matrix;
use qera_tests::precision::{ROOT_INVERSE, ROOT_SQUARED};
use qera_tests::spectra::symmetric;

use super::within;

/// A square root and its inverse.
#[derive(Debug)]
struct SquareRoots {
    root: Matrix,
    inverse: Matrix,
    report: NewtonSchulzReport,
}

fn roots(a: &Matrix) -> Result<SquareRoots, NewtonSchulzError> {
    let n = a.nrows();
    let (mut root, mut inverse) = (Matrix::zeros(n, n), Matrix::zeros(n, n));
    let mut workspace = vec![0.0; newton_schulz_workspace_len(n)];
    let report = newton_schulz(
        a.view(),
        root.view_mut(),
        inverse.view_mut(),
        &mut workspace,
        NewtonSchulzLimits::default(),
    )?;
    Ok(SquareRoots {
        root,
        inverse,
        report,
    })
}

#[test]
fn roots_square_and_invert() {
    for n in [1, 2, 5, 40, 96] {
        for decades in [0.0, 2.0, 6.0, 9.0] {
            let values: Vec<f64> = (0..n)
                .map(|i| 3.0 * 10.0_f64.powf(-decades * i as f64 / n.max(2) as f64))
                .collect();
            let a = symmetric(&values, n as u64);
            let SquareRoots {
                root,
                inverse,
                report,
            } = roots(&a).unwrap();
            let condition = values[0] / values[n - 1];
            let squared = (&(&root * &root) - &a).norm();
            within(
                squared,
                ROOT_SQUARED,
                n.max(4),
                a.norm() * condition.powf(0.25),
            );
            let defect = (&(&root * &inverse) - &Matrix::identity(n)).norm();
            within(defect, ROOT_INVERSE, n.max(4), condition.sqrt());
            assert!(root == root.transpose() && inverse == inverse.transpose());
            assert!(report.iterations < 50, "{report:?} at {decades} decades");
        }
    }
}

#[test]
fn roots_of_what_has_none_are_errors() {
    // Exactly singular with a positive diagonal: rank 1.
    let singular = Matrix::filled(4, 4, 1.0);
    assert!(matches!(
        roots(&singular),
        Err(NewtonSchulzError::NoConvergence { .. } | NewtonSchulzError::Diverged { .. })
    ));
    // Indefinite with a positive diagonal: eigenvalues 3 and -1.
    let indefinite = Matrix::from_rows(&[[1.0, 2.0], [2.0, 1.0]]);
    assert!(matches!(
        roots(&indefinite),
        Err(NewtonSchulzError::Diverged { .. } | NewtonSchulzError::NoConvergence { .. })
    ));
    let dead = Matrix::diagonal(&[1.0, 0.0, 2.0]);
    assert_eq!(
        roots(&dead).unwrap_err(),
        NewtonSchulzError::NotPositiveDefinite {
            index: 1,
            value: 0.0
        }
    );
    let mut a = Matrix::identity(2);
    a[(0, 1)] = f64::NAN;
    assert_eq!(
        roots(&a).unwrap_err(),
        NewtonSchulzError::NonFinite { row: 0, column: 1 }
    );
}

#[test]
fn roots_refuse_a_short_workspace_and_a_short_limit() {
    let a = symmetric(&[4.0, 1.0, 1e-3], 2);
    let run = |workspace: usize, max_iterations: usize| {
        newton_schulz(
            a.view(),
            Matrix::zeros(3, 3).view_mut(),
            Matrix::zeros(3, 3).view_mut(),
            &mut vec![0.0; workspace],
            NewtonSchulzLimits {
                max_iterations,
                ..NewtonSchulzLimits::default()
            },
        )
    };
    assert!(run(12, 100).is_ok());
    assert!(matches!(run(11, 100), Err(NewtonSchulzError::Workspace(_))));
    assert!(matches!(
        run(12, 3),
        Err(NewtonSchulzError::NoConvergence { iterations: 3, .. })
    ));
}
