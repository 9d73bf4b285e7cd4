//! Problems and workspaces that are refused by value.

use qera_core::packed::packed_len;
use qera_core::reconstruct::{
    OutputErrorError, Problem, ProblemError, ReconstructError, RootMethod, Statistic,
    WhitenedError, output_error, output_error_workspace_len, reconstruct_exact,
    reconstruct_whitened, reconstruct_workspace_len, whitened_workspace_len,
};
use qera_tests::matrix::Matrix;
use qera_tests::spectra::uniform;

#[test]
fn problems_are_refused_by_value() {
    let error = uniform(3, 2, 1);
    let new = |statistic| Problem::new(error.view(), statistic, 1).map(|_| ());
    assert!(matches!(
        new(Statistic::Diagonal(&[1.0; 2])),
        Err(ProblemError::Shape(_))
    ));
    assert!(matches!(
        new(Statistic::Autocorrelation(&[1.0; 5])),
        Err(ProblemError::Shape(_))
    ));
    assert_eq!(
        new(Statistic::Autocorrelation(&[
            1.0,
            0.0,
            f64::NAN,
            1.0,
            0.0,
            1.0
        ])),
        Err(ProblemError::NonFinite {
            operand: "autocorrelation",
            index: 2
        })
    );
    assert_eq!(
        new(Statistic::Autocorrelation(&[1.0, 0.0, 0.0, -1.0, 0.0, 1.0])),
        Err(ProblemError::Negative {
            operand: "autocorrelation",
            channel: 1,
            value: -1.0
        })
    );
    let mut broken = error.clone();
    broken[(2, 1)] = f64::INFINITY;
    assert_eq!(
        Problem::new(broken.view(), Statistic::Identity, 1).map(|_| ()),
        Err(ProblemError::NonFinite {
            operand: "error",
            index: 5
        })
    );
    let empty = Matrix::zeros(0, 4);
    assert!(matches!(
        Problem::new(empty.view(), Statistic::Identity, 1),
        Err(ProblemError::Empty {
            in_features: 0,
            out_features: 4
        })
    ));
    let problem = Problem::new(error.view(), Statistic::Identity, 1).unwrap();
    assert!(matches!(
        problem.with_shrinkage(1.5),
        Err(ProblemError::Shrinkage { .. })
    ));
    assert!(matches!(
        problem.with_weight(error.transpose().view()),
        Err(ProblemError::Shape(_))
    ));
    assert!(matches!(
        problem.with_scale(&[1.0, -1.0, 1.0]),
        Err(ProblemError::Negative { channel: 1, .. })
    ));
    assert!(matches!(
        problem.with_start(Matrix::zeros(3, 1).view()),
        Err(ProblemError::Shape(_))
    ));
}

#[test]
fn one_less_workspace_is_refused() {
    let (m, n, rank) = (7, 60, 2);
    let error = uniform(m, n, 1);
    let packed = vec![0.0; packed_len(m)];
    let problem = Problem::new(error.view(), Statistic::Autocorrelation(&packed), rank).unwrap();
    let (mut a, mut b) = (Matrix::zeros(m, rank), Matrix::zeros(rank, n));

    let mut lent = vec![0.0; reconstruct_workspace_len(m, n, rank) - 1];
    assert!(matches!(
        reconstruct_exact(&problem, a.view_mut(), b.view_mut(), &mut [], &mut lent),
        Err(ReconstructError::Workspace(_))
    ));
    let mut lent = vec![0.0; whitened_workspace_len(m, n) - 1];
    assert!(matches!(
        reconstruct_whitened(
            &problem,
            RootMethod::JacobiEigen,
            a.view_mut(),
            b.view_mut(),
            &mut [],
            &mut lent
        ),
        Err(WhitenedError::Workspace(_))
    ));
    let mut lent = vec![0.0; output_error_workspace_len(m) - 1];
    assert!(matches!(
        output_error(&problem, a.view(), b.view(), &mut lent),
        Err(OutputErrorError::Workspace(_))
    ));
    let mut lent = vec![0.0; reconstruct_workspace_len(m, n, rank)];
    assert!(matches!(
        reconstruct_exact(&problem, b.view_mut(), a.view_mut(), &mut [], &mut lent),
        Err(ReconstructError::Shape(_))
    ));
    // Sizes beyond the address space are refused like any other, not wrapped around.
    assert_eq!(
        reconstruct_workspace_len(usize::MAX / 2, usize::MAX / 2, 64),
        usize::MAX
    );
}
