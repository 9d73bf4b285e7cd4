//! The golden problem by every method and both routes.

use crate::golden::{self, ERRORS, M, N, R, SINGULAR, WEIGHT};
use crate::{all_close, close};
use nalgebra::{DMatrixView, DMatrixViewMut};
use qera_core::reconstruct::{
    Method, Problem, Report, RootMethod, Statistic, StatisticKind, output_error,
    output_error_workspace_len, reconstruct, reconstruct_exact, reconstruct_whitened,
    reconstruct_workspace_len, whitened_workspace_len,
};

/// What the methods need and may do.
fn predicates() -> bool {
    let [exact, approx, lqer, plain] = [
        Method::Exact,
        Method::Approx,
        Method::Lqer,
        Method::WeightOnly,
    ];
    Method::needs_r(exact)
        && !Method::needs_r(approx)
        && Method::shrinks(exact)
        && !Method::shrinks(approx)
        && Method::uses_rows(approx)
        && Method::needs_batch_max(lqer)
        && !Method::needs_mean_abs(lqer)
        && !Method::uses_rows(plain)
        && Method::gap_is_in_f(approx)
        && !Method::gap_is_in_f(lqer)
        && Method::can_leave_out(exact)
        && Method::is_of_mean_squares(Method::of_mean_squares())
        && !Method::can_leave_out(lqer)
        && Method::corrects(exact)
        && !Method::corrects(plain)
        && Method::statistic_kind(plain) == StatisticKind::Identity
        && Method::statistic_kind(exact) == StatisticKind::Autocorrelation
}

/// The precision to which the golden numbers are printed.
const PRINTED: f64 = 1e-8;

fn problem() -> bool {
    state_problem().unwrap_or(false)
}

fn state_problem() -> Option<bool> {
    let (error, weight) = (golden::error(), WEIGHT.map(f64::from));
    let (start, scale) = ([1.0, 0.0, 0.0], [1.0; M]);
    let problem = Problem::new(
        DMatrixView::from_slice(&error, M, N),
        Statistic::Autocorrelation(&R),
        1,
    )
    .ok()?;
    let problem = Problem::with_weight(problem, DMatrixView::from_slice(&weight, M, N)).ok()?;
    let problem = Problem::with_scale(problem, &scale).ok()?;
    let problem = Problem::with_shrinkage(problem, 0.0).ok()?;
    let problem = Problem::with_start(problem, DMatrixView::from_slice(&start, N, 1)).ok()?;
    let statistic = Problem::statistic(&problem);
    Some(
        Problem::error(&problem)[(0, 0)] == error[0]
            && matches!(statistic, Statistic::Autocorrelation(_))
            && Problem::rank(&problem) == 1
            && Problem::weight(&problem).is_some()
            && Problem::scale(&problem).is_some()
            && Problem::start(&problem).is_some()
            && Problem::shrinkage(&problem) == 0.0
            && Problem::in_features(&problem) == M
            && Problem::out_features(&problem) == N,
    )
}

pub fn methods() -> bool {
    problem() && solve_by_methods().unwrap_or(false)
}

fn solve_by_methods() -> Option<bool> {
    let (error, weight) = (golden::error(), WEIGHT.map(f64::from));
    let problem = Problem::new(
        DMatrixView::from_slice(&error, M, N),
        Statistic::Autocorrelation(&R),
        1,
    )
    .ok()?;
    let problem = Problem::with_weight(problem, DMatrixView::from_slice(&weight, M, N)).ok()?;
    let mut workspace = [0.0; reconstruct_workspace_len(M, N, 1)];
    let (mut a, mut b, mut spectrum) = ([0.0; M], [0.0; N], [0.0; N]);
    let expected = [
        ("exact", ERRORS[1]),
        ("approx", ERRORS[2]),
        ("zeroquant-v2", ERRORS[3]),
        ("w-only", ERRORS[0]),
    ];
    if !predicates() {
        return Some(false);
    }
    for (name, f) in expected {
        let method = Method::parse(name)?;
        let (a, b) = (
            DMatrixViewMut::from_slice(&mut a, M, 1),
            DMatrixViewMut::from_slice(&mut b, 1, N),
        );
        let report = reconstruct(method, &problem, a, b, &mut spectrum, &mut workspace).ok()?;
        if Method::name(method) != name || !close(report.error_with, f, PRINTED) {
            return Some(false);
        }
    }
    let (a_out, b_out) = (
        DMatrixViewMut::from_slice(&mut a, M, 1),
        DMatrixViewMut::from_slice(&mut b, 1, N),
    );
    let report = reconstruct_exact(&problem, a_out, b_out, &mut spectrum, &mut workspace).ok()?;
    let mut scratch = [0.0; output_error_workspace_len(M)];
    let (a, b) = (
        DMatrixView::from_slice(&a, M, 1),
        DMatrixView::from_slice(&b, 1, N),
    );
    let measured = output_error(&problem, a, b, &mut scratch).ok()?;
    Some(
        close(measured, ERRORS[1], PRINTED)
            && close(report.error_without, ERRORS[0], PRINTED)
            && close(Report::remaining(&report), ERRORS[1] / ERRORS[0], PRINTED)
            && Report::relative_with(&report) < Report::relative_without(&report)
            && all_close(&spectrum, &SINGULAR.map(|s| s * s), PRINTED),
    )
}

pub fn whitened_route() -> bool {
    solve_whitened().unwrap_or(false)
}

fn solve_whitened() -> Option<bool> {
    let error = golden::error();
    let problem = Problem::new(
        DMatrixView::from_slice(&error, M, N),
        Statistic::Autocorrelation(&R),
        1,
    )
    .ok()?;
    let mut workspace = [0.0; whitened_workspace_len(M, N)];
    let (mut a, mut b, mut spectrum) = ([0.0; M], [0.0; N], [0.0; N]);
    for root in [RootMethod::NewtonSchulz, RootMethod::JacobiEigen] {
        let (a, b) = (
            DMatrixViewMut::from_slice(&mut a, M, 1),
            DMatrixViewMut::from_slice(&mut b, 1, N),
        );
        let report =
            reconstruct_whitened(&problem, root, a, b, &mut spectrum, &mut workspace).ok()?;
        if !close(report.error_with, ERRORS[1], PRINTED)
            || !all_close(&spectrum, &SINGULAR.map(|s| s * s), PRINTED)
        {
            return Some(false);
        }
    }
    Some(true)
}
