//! The routes against each other, and against the optimum.

use proptest::prelude::*;
use qera_core::reconstruct::{Method, Problem, RootMethod, Statistic};
use qera_tests::precision::{ROUTES_AGREE, allowed};
use qera_tests::spectra::{Spectrum, packed, spectrum, symmetric, uniform};

use super::singular::check_sound;
use super::{autocorrelation, close, measured, solve, whiten};

#[test]
fn the_exact_routes_agree_at_condition_1e6() {
    for (m, n, rank) in [(48, 40, 6), (40, 72, 5), (96, 96, 8)] {
        let values: Vec<f64> = (0..m)
            .map(|i| 10.0_f64.powf(-6.0 * i as f64 / (m - 1) as f64))
            .collect();
        let packed = packed(&symmetric(&values, m as u64));
        let error = uniform(m, n, 77);
        let problem =
            Problem::new(error.view(), Statistic::Autocorrelation(&packed), rank).unwrap();
        let projected = solve(Method::Exact, &problem);
        for root in [RootMethod::NewtonSchulz, RootMethod::JacobiEigen] {
            let whitened = whiten(root, &problem).unwrap();
            close(
                whitened.report.error_with,
                projected.report.error_with,
                ROUTES_AGREE,
            );
            let gap = &whitened.correction() - &projected.correction();
            let relative = gap.norm() / projected.correction().norm();
            assert!(
                relative <= ROUTES_AGREE,
                "{root:?} {m} x {n}: C differs by {relative:e}"
            );
            for (a, b) in whitened.spectrum.iter().zip(&projected.spectrum[..rank]) {
                close(*a, *b, ROUTES_AGREE);
            }
        }
    }
}

#[test]
fn theorem_2_by_both_routes() {
    let error = uniform(30, 22, 5);
    let diagonal: Vec<f64> = spectrum(Spectrum::Graded, 30);
    let problem = Problem::new(error.view(), Statistic::Diagonal(&diagonal), 4).unwrap();
    let projected = solve(Method::Approx, &problem);
    let whitened = whiten(RootMethod::NewtonSchulz, &problem).unwrap();
    close(
        whitened.report.error_with,
        projected.report.error_with,
        ROUTES_AGREE,
    );
    let exact = solve(Method::Exact, &problem);
    close(exact.report.error_with, projected.report.error_with, 0.0);
    let identity = Problem::new(error.view(), Statistic::Identity, 4).unwrap();
    let blind = whiten(RootMethod::JacobiEigen, &identity).unwrap();
    close(
        solve(Method::ZeroQuantV2, &identity).report.error_with,
        blind.report.error_with,
        ROUTES_AGREE,
    );
}

#[test]
fn shrinkage_moves_from_exact_to_approx_and_is_reported_honestly() {
    let r = autocorrelation(&uniform(40, 32, 6));
    let packed = packed(&r);
    let error = uniform(32, 24, 8);
    let problem = Problem::new(error.view(), Statistic::Autocorrelation(&packed), 4).unwrap();
    let at = |a: f64| solve(Method::Exact, &problem.with_shrinkage(a).unwrap());
    let errors = [0.0, 0.1, 0.3, 0.7, 1.0].map(|a| at(a).report.error_with);
    assert!(
        errors.windows(2).all(|pair| pair[0] <= pair[1]),
        "{errors:?}"
    );
    close(
        errors[4],
        solve(Method::Approx, &problem).report.error_with,
        1e-12,
    );
    for a in [0.0, 0.3, 1.0] {
        let solved = at(a);
        close(measured(&problem, &solved), solved.report.error_with, 1e-12);
    }
    // The whitened route shrinks alike.
    let half = problem.with_shrinkage(0.5).unwrap();
    let whitened = whiten(RootMethod::JacobiEigen, &half).unwrap();
    close(
        whitened.report.error_with,
        at(0.5).report.error_with,
        ROUTES_AGREE,
    );
}

#[test]
fn a_layer_larger_than_the_basis_reaches_the_optimum_cold_and_warm() {
    let (m, n, rank) = (160, 200, 8);
    let r = symmetric(&spectrum(Spectrum::PowerLaw, m), 14);
    let packed = packed(&r);
    let error = uniform(m, n, 15);
    let problem = Problem::new(error.view(), Statistic::Autocorrelation(&packed), rank).unwrap();
    let cold = solve(Method::Exact, &problem);
    let g = (&(&error.transpose() * &r) * &error).symmetrised();
    let mut oracle = g
        .to_faer()
        .self_adjoint_eigenvalues(faer::Side::Lower)
        .unwrap();
    oracle.truncate(n - rank);
    let best: f64 = oracle.iter().sum();
    close(cold.report.error_with, best, 1e-10);
    close(measured(&problem, &cold), best, 1e-10);
    let start = cold.b.transpose();
    let warm = solve(Method::Exact, &problem.with_start(start.view()).unwrap());
    close(warm.report.error_with, best, 1e-10);
    let again = solve(Method::Exact, &problem);
    assert!(
        again.a == cold.a && again.b == cold.b,
        "the same input must give the same bits"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// No method is ever worse than none, under statistics of any rank, and exact is never above
    /// another method.
    #[test]
    fn exact_is_best_and_nothing_hurts(
        m in 1_usize..20,
        n in 1_usize..70,
        rows in 1_usize..40,
        rank in 0_usize..12,
        seed in any::<u64>(),
    ) {
        let packed = packed(&autocorrelation(&uniform(rows, m, seed)));
        let error = uniform(m, n, seed ^ 1);
        let scale: Vec<f64> = uniform(m, 1, seed ^ 2).as_slice().iter().map(|x| x.abs()).collect();
        let problem = Problem::new(error.view(), Statistic::Autocorrelation(&packed), rank).unwrap();
        let problem = problem.with_scale(&scale).unwrap().with_weight(error.view()).unwrap();
        let exact = solve(Method::Exact, &problem);
        for method in Method::ALL {
            let solved = solve(method, &problem);
            check_sound(&problem, &solved, method.name());
            let slack = 1e-10 * solved.report.error_with + allowed(1.0, m.max(n), solved.report.error_without);
            prop_assert!(exact.report.error_with <= solved.report.error_with + slack);
        }
    }
}
