//! The metrics against their definitions.

use faer::Side;
use faer::linalg::solvers::Solve;
use qera_core::quantize::round::{
    MetricOptions, MetricReport, damped_metric, projected_metric, projected_metric_workspace_len,
};
use qera_tests::layer_input::{Input, Population};
use qera_tests::matrix::Matrix;
use qera_tests::spectra::{packed, uniform};

const M: usize = 48;

fn options(shrinkage: f64, base_share: f64) -> MetricOptions {
    MetricOptions {
        shrinkage,
        base_share,
        ..MetricOptions::default()
    }
}

fn damped(r: &Matrix, options: &MetricOptions) -> (Matrix, MetricReport) {
    let m = r.nrows();
    let mut metric = Matrix::filled(m, m, f64::NAN);
    let report = damped_metric(&packed(r), options, metric.view_mut()).unwrap();
    (metric, report)
}

fn projected(r: &Matrix, a: &Matrix, options: &MetricOptions) -> (Matrix, MetricReport) {
    let m = r.nrows();
    let mut metric = Matrix::filled(m, m, f64::NAN);
    let mut workspace = vec![f64::NAN; projected_metric_workspace_len(m, a.ncols())];
    let metric_view = metric.view_mut();
    let report = projected_metric(&packed(r), a.view(), options, metric_view, &mut workspace);
    (metric, report.unwrap())
}

fn autocorrelation(input: Input) -> Matrix {
    Matrix::from_faer(
        Population::new(input, M)
            .autocorrelation(input.rows(M), 5)
            .as_ref(),
    )
}

fn shrunk(r: &Matrix, a: f64) -> Matrix {
    let share = |i, j| if i == j { 1.0 } else { 1.0 - a };
    Matrix::from_fn(r.nrows(), r.nrows(), |i, j| share(i, j) * r[(i, j)])
}

/// R_a A (A^T R_a A)^-1 A^T R_a by an oracle's solver.
fn absorbed(shrunk: &Matrix, a: &Matrix) -> Matrix {
    let image = shrunk * a;
    let gram = &a.transpose() * &image;
    let factor = gram.symmetrised().to_faer().llt(Side::Lower).unwrap();
    let solved = factor.solve(image.transpose().to_faer());
    &image * &Matrix::from_faer(solved.as_ref())
}

#[test]
fn damped_by_definition() {
    for input in Input::ALL {
        let r = autocorrelation(input);
        for a in [0.0, 0.25, 1.0] {
            let (found, report) = damped(&r, &options(a, 0.5));
            let lambda = 0.01 * r.trace() / M as f64;
            assert!((report.damping - lambda).abs() <= 1e-14 * lambda && report.rank == 0);
            let expected = &shrunk(&r, a) + &Matrix::identity(M).scale(lambda);
            assert!((&found - &expected).norm() <= 1e-14 * expected.norm());
            assert!(found == found.transpose());
        }
    }
}

#[test]
fn projected_by_definition() {
    for input in Input::ALL {
        let r = autocorrelation(input);
        for (rank, seed) in [(1, 3), (4, 4), (16, 5)] {
            let a = uniform(M, rank, seed);
            for (shrinkage, b) in [(0.0, 0.0), (0.25, 0.0), (0.25, 0.01), (0.1, 1.0)] {
                let options = options(shrinkage, b);
                let (found, report) = projected(&r, &a, &options);
                let (whole, _) = damped(&r, &options);
                let shrunk = shrunk(&r, shrinkage);
                let expected = &whole - &absorbed(&shrunk, &a).scale(1.0 - b);
                let error = (&found - &expected).norm() / whole.norm();
                // Three channels are 6e6 times the others there, and A^T R A is that near to
                // singular; lambda is 1e-3 of |R|.
                let allowed = if input == Input::Massive { 1e-6 } else { 1e-9 };
                assert!(error <= allowed, "{input:?} {rank} {options:?}: {error:e}");
                assert!(report.rank == rank || input == Input::Massive, "{report:?}");
                assert!(found == found.transpose());
            }
        }
    }
}

/// What the adapter can absorb costs b R_a and lambda, and nothing costs less than lambda.
#[test]
fn the_span_is_cheap_and_nothing_is_free() {
    for input in Input::ALL {
        let r = autocorrelation(input);
        let a = uniform(M, 8, 9);
        for b in [0.0, 0.01] {
            let options = options(0.2, b);
            let (metric, report) = projected(&r, &a, &options);
            let of_span = |metric: &Matrix| &a.transpose() * &(metric * &a);
            let floor = Matrix::identity(M).scale(report.damping);
            let expected = &of_span(&shrunk(&r, 0.2)).scale(b) + &of_span(&floor);
            let error = (&of_span(&metric) - &expected).norm();
            let whole = of_span(&shrunk(&r, 0.2)).norm();
            assert!(error <= 1e-12 * whole, "{input:?}: {:e}", error / whole);
            let values = metric
                .to_faer()
                .self_adjoint_eigenvalues(Side::Lower)
                .unwrap();
            let least = values[0] / report.damping;
            assert!(least >= 1.0 - 1e-6, "{input:?}: {least}");
        }
    }
}

/// tr(E^T R_perp E) is what is left once B is the best for this A: by the oracle's least squares.
#[test]
fn it_is_what_the_best_factors_leave() {
    let r = autocorrelation(Input::Natural);
    let (a, error) = (uniform(M, 6, 21), uniform(M, 10, 22));
    let (metric, report) = projected(&r, &a, &options(0.0, 0.0));
    let perp = &metric - &Matrix::identity(M).scale(report.damping);
    let found = (&error.transpose() * &(&perp * &error)).trace();
    // R = Y^T Y; min over B of |Y E - Y A B|.
    let root = r.to_faer().llt(Side::Lower).unwrap();
    let y = Matrix::from_faer(root.L().transpose());
    let basis = Matrix::from_faer((&y * &a).to_faer().qr().compute_thin_Q().as_ref());
    let image = &y * &error;
    let left = &image - &(&basis * &(&basis.transpose() * &image));
    let expected = left.norm().powi(2);
    assert!(
        (found - expected).abs() <= 1e-12 * expected,
        "{found} {expected}"
    );
}

/// Columns that depend on each other, that are zero or of any size: only the span counts.
#[test]
fn only_the_span_counts() {
    for input in [Input::Natural, Input::Outliers] {
        let r = autocorrelation(input);
        let a = uniform(M, 5, 31);
        let (expected, _) = projected(&r, &a, &options(0.1, 0.01));
        let sizes = [1e-12, 1.0, 1e9, 1e-3, 1e3];
        let scaled = Matrix::from_fn(M, 5, |i, j| a[(i, j)] * sizes[j]);
        // Two times the same, their sum, zeros.
        let repeated = Matrix::from_fn(M, 9, |i, j| match j {
            0..5 => a[(i, j)],
            5 => a[(i, 2)],
            6 => a[(i, 0)] + a[(i, 4)],
            7 => -3.0 * a[(i, 1)],
            _ => 0.0,
        });
        for same in [scaled, repeated] {
            let (found, report) = projected(&r, &same, &options(0.1, 0.01));
            let error = (&found - &expected).norm() / expected.norm();
            assert!(error <= 1e-12 && report.rank == 5, "{report:?} {error:e}");
        }
    }
}

#[test]
fn ranks_at_their_ends() {
    let r = autocorrelation(Input::Natural);
    let options = options(0.1, 0.0);
    let (whole, _) = damped(&r, &options);
    for nothing in [Matrix::zeros(M, 0), Matrix::zeros(M, 3)] {
        let (found, report) = projected(&r, &nothing, &options);
        assert!(found == whole && report.rank == 0);
    }
    // All directions: only lambda is left.
    let (found, report) = projected(&r, &uniform(M, M + 2, 41), &options);
    let floor = Matrix::identity(M).scale(report.damping);
    let error = (&found - &floor).norm() / whole.norm();
    assert!(report.rank <= M && error <= 1e-6, "{report:?} {error:e}");
    let (found, report) = projected(&Matrix::identity(1), &Matrix::identity(1), &options);
    assert!(report.rank == 1 && (found[(0, 0)] - 0.01).abs() < 1e-15);
}

/// Inputs that are always 0: any rounding costs nothing, so the metric is the identity.
#[test]
fn no_inputs_have_a_metric_too() {
    let (found, report) = projected(&Matrix::zeros(4, 4), &uniform(4, 2, 1), &options(0.5, 0.01));
    assert_eq!(found, Matrix::identity(4));
    assert_eq!((report.damping, report.rank), (1.0, 0));
}
