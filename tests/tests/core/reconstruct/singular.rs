//! Statistics of too low a rank, ranks that do not exist, and nothing to correct.

use qera_core::reconstruct::{Method, Problem, RootMethod, Statistic, WhitenedError};
use qera_tests::matrix::Matrix;
use qera_tests::precision::allowed;
use qera_tests::spectra::{packed, uniform};

use super::{SolvedProblem, autocorrelation, measured, solve, whiten};

/// Fewer rows than channels, dead channels, an all-zero site, no error at all, and ranks that do
/// not exist: finite, never above no correction, excess columns exactly zero, the reported error
/// that of the factors.
#[test]
fn singular_inputs_give_finite_factors() {
    let (m, n) = (24, 18);
    let few = autocorrelation(&uniform(5, m, 1));
    let mut x = uniform(200, m, 2);
    for row in 0..200 {
        for dead in [0, 7, 23] {
            x[(row, dead)] = 0.0;
        }
    }
    let dead = autocorrelation(&x);
    let nothing = Matrix::zeros(m, m);
    for (name, r) in [
        ("few rows", few),
        ("dead channels", dead),
        ("no input", nothing),
    ] {
        let packed = packed(&r);
        for error in [
            uniform(m, n, 3),
            Matrix::zeros(m, n),
            Matrix::filled(m, n, 0.25),
        ] {
            for rank in [0, 1, 6, n, m, 40] {
                let statistic = Statistic::Autocorrelation(&packed);
                let problem = Problem::new(error.view(), statistic, rank).unwrap();
                let problem = problem.with_scale(&[1.0; 24]).unwrap();
                let problem = problem.with_weight(error.view()).unwrap();
                for method in Method::ALL {
                    let solved = solve(method, &problem);
                    check_sound(&problem, &solved, &format!("{name}, {method}, rank {rank}"));
                }
                let solved = whiten(RootMethod::JacobiEigen, &problem).unwrap();
                check_sound(&problem, &solved, &format!("{name}, whitened, rank {rank}"));
                assert!(matches!(
                    whiten(RootMethod::NewtonSchulz, &problem),
                    Err(WhitenedError::NewtonSchulz(_))
                ));
            }
        }
    }
}

#[track_caller]
pub(super) fn check_sound(problem: &Problem<'_>, solved: &SolvedProblem, case: &str) {
    let report = solved.report;
    let (m, n) = (problem.in_features(), problem.out_features());
    for factor in [&solved.a, &solved.b] {
        assert!(factor.as_slice().iter().all(|x| x.is_finite()), "{case}");
    }
    assert!(
        report.rank_used <= problem.rank().min(m).min(n),
        "{case}: {report:?}"
    );
    for j in report.rank_used..problem.rank() {
        assert!((0..m).all(|i| solved.a[(i, j)] == 0.0), "{case}");
        assert!((0..n).all(|i| solved.b[(j, i)] == 0.0), "{case}");
    }
    let rounding = allowed(1.0, m.max(n), report.error_without);
    assert!(
        report.error_with <= report.error_without + rounding,
        "{case}: {report:?}"
    );
    let gap = (measured(problem, solved) - report.error_with).abs();
    assert!(
        gap <= rounding,
        "{case}: measured differs by {gap:e}, {report:?}"
    );
    assert!(report.remaining().is_finite() && report.relative_with().is_finite());
}

/// Rank 5 statistic, rank 5 or more: nothing is left, and it is measured rather than subtracted.
#[test]
fn a_full_rank_correction_leaves_nothing() {
    let packed = packed(&autocorrelation(&uniform(5, 30, 1)));
    let error = uniform(30, 20, 9);
    let problem = Problem::new(error.view(), Statistic::Autocorrelation(&packed), 12).unwrap();
    let solved = solve(Method::Exact, &problem);
    assert_eq!(solved.report.rank_used, 5);
    assert!(solved.report.error_with >= 0.0 && solved.report.remaining() < 1e-25);
}
