//! Reconstruction: the golden vectors, the two exact routes against each other, optimality, and
//! inputs that break the published program (singular statistics, dead channels, ranks that do not
//! exist).

mod golden_vector;
mod optimality;
mod refusals;
mod singular;

use qera_core::reconstruct::{
    Method, Problem, Report, RootMethod, WhitenedError, output_error, output_error_workspace_len,
    reconstruct, reconstruct_whitened, reconstruct_workspace_len, whitened_workspace_len,
};
use qera_tests::matrix::Matrix;

/// What a solve gives back.
struct SolvedProblem {
    a: Matrix,
    b: Matrix,
    spectrum: Vec<f64>,
    report: Report,
}

impl SolvedProblem {
    fn correction(&self) -> Matrix {
        &self.a * &self.b
    }
}

fn solve(method: Method, problem: &Problem<'_>) -> SolvedProblem {
    let (m, n, rank) = (
        problem.in_features(),
        problem.out_features(),
        problem.rank(),
    );
    let (mut a, mut b) = (Matrix::zeros(m, rank), Matrix::zeros(rank, n));
    let mut spectrum = vec![0.0; n];
    let mut workspace = vec![f64::NAN; reconstruct_workspace_len(m, n, rank)];
    let report = reconstruct(
        method,
        problem,
        a.view_mut(),
        b.view_mut(),
        &mut spectrum,
        &mut workspace,
    )
    .unwrap();
    spectrum.truncate(report.spectrum_len);
    SolvedProblem {
        a,
        b,
        spectrum,
        report,
    }
}

fn whiten(root: RootMethod, problem: &Problem<'_>) -> Result<SolvedProblem, WhitenedError> {
    let (m, n, rank) = (
        problem.in_features(),
        problem.out_features(),
        problem.rank(),
    );
    let (mut a, mut b) = (Matrix::zeros(m, rank), Matrix::zeros(rank, n));
    let mut spectrum = vec![0.0; n];
    let mut workspace = vec![f64::NAN; whitened_workspace_len(m, n)];
    let report = reconstruct_whitened(
        problem,
        root,
        a.view_mut(),
        b.view_mut(),
        &mut spectrum,
        &mut workspace,
    )?;
    spectrum.truncate(report.spectrum_len);
    Ok(SolvedProblem {
        a,
        b,
        spectrum,
        report,
    })
}

fn measured(problem: &Problem<'_>, solved: &SolvedProblem) -> f64 {
    let mut workspace = vec![0.0; output_error_workspace_len(problem.in_features())];
    output_error(problem, solved.a.view(), solved.b.view(), &mut workspace).unwrap()
}

/// `R = X^T X / rows`.
fn autocorrelation(x: &Matrix) -> Matrix {
    (&x.transpose() * x)
        .scale(1.0 / x.nrows() as f64)
        .symmetrised()
}

#[track_caller]
fn close(value: f64, expected: f64, tolerance: f64) {
    let error = (value - expected).abs() / expected.abs();
    assert!(error <= tolerance, "{value} is {error:e} from {expected}");
}
