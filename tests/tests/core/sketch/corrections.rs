//! A and B from a sketch: what they leave, measured with R.

use nalgebra::DMatrixViewMut;
use qera_core::reconstruct::{
    Method, Problem, Shrinkage, SketchedReport, Statistic, reconstruct, reconstruct_sketched,
    reconstruct_sketched_shrunk, reconstruct_workspace_len, sketched_workspace_len,
};
use qera_core::statistics::ErrorSketch;
use qera_tests::matrix::Matrix;
use qera_tests::spectra::{Spectrum, packed};

use super::{ROUNDING, Sketched, Stream, eigenvalues};

/// A correction with its report.
struct Correction {
    a: Matrix,
    b: Matrix,
    report: SketchedReport,
}

fn correct(stream: &Stream, sketched: &Sketched, rank: usize, share: Option<f64>) -> Correction {
    let (m, n) = (stream.error.nrows(), stream.n());
    let mut rows = sketched.rows.clone();
    let sketch = ErrorSketch::resume(&mut rows, n, sketched.totals).unwrap();
    let (mut a, mut b) = (vec![f64::NAN; m * rank], vec![f64::NAN; rank * n]);
    let mut columns = vec![0.0; 2 * m];
    let to_a = DMatrixViewMut::from_slice(&mut a, m, rank);
    let to_b = DMatrixViewMut::from_slice(&mut b, rank, n);
    let mut error = stream.columns();
    let report = match share {
        None => reconstruct_sketched(&sketch, &mut error, &mut columns, to_a, to_b),
        Some(share) => {
            let r = stream.autocorrelation();
            let diagonal: Vec<f64> = (0..m).map(|i| r[(i, i)]).collect();
            let shrinkage = Shrinkage {
                diagonal: &diagonal,
                share,
            };
            let mut workspace = vec![0.0; sketched_workspace_len(m, n, rank)];
            reconstruct_sketched_shrunk(
                &sketch,
                shrinkage,
                &mut error,
                &mut columns,
                to_a,
                to_b,
                &mut workspace,
            )
        }
    }
    .unwrap();
    Correction {
        a: Matrix::from_columns(m, rank, a),
        b: Matrix::from_columns(rank, n, b),
        report,
    }
}

/// tr(R P P^T), the plain way.
fn left(stream: &Stream, of: &Correction) -> f64 {
    let p = &stream.error - &(&of.a * &of.b);
    (&p.transpose() * &(&stream.autocorrelation() * &p)).trace()
}

#[test]
fn what_is_left_and_the_optimum_lie_within_the_interval() {
    for kind in Spectrum::SEMI_DEFINITE {
        let stream = Stream::new(240, 24, 30, 24, kind);
        let (g, slack) = (stream.g(), ROUNDING * stream.g().trace());
        let values = eigenvalues(&g);
        for (l, rank) in [(9, 4), (17, 8), (6, 9)] {
            let sketched = stream.sketch(l, 16, 0, 240);
            let found = correct(&stream, &sketched, rank, None);
            let report = found.report;
            let f = left(&stream, &found);
            let best = g.trace() - values.iter().take(report.rank_used).sum::<f64>();
            assert!((report.error_without - g.trace()).abs() <= slack);
            assert!(report.rank_used <= rank.min(l - 1));
            for (what, value) in [("f", f), ("the optimum", best)] {
                let (least, most) = (report.error_least - slack, report.error_most + slack);
                assert!(
                    least <= value && value <= most,
                    "{kind:?} {l} {rank}: {what} {value} is not within {report:?}"
                );
            }
            let mut rows = sketched.rows.clone();
            let sketch = ErrorSketch::resume(&mut rows, 30, sketched.totals).unwrap();
            let optimum = sketch.optimum(report.rank_used);
            assert!((optimum.most - report.error_most).abs() <= slack);
            assert!((optimum.least - report.error_least).abs() <= slack);
            // B has orthonormal rows, and A is E B^T.
            let used = report.rank_used;
            let v = Matrix::from_fn(30, used, |j, r| found.b[(r, j)]);
            assert!(v.orthogonality_defect() <= 1e-13);
            let a = &stream.error * &found.b.transpose();
            assert!((&a - &found.a).norm() <= 1e-13 * a.norm());
        }
    }
}

/// Where the sketch has lost nothing, shrinkage does what it does with R.
#[test]
fn shrinkage_is_that_of_r() {
    let stream = Stream::new(300, 28, 20, 28, Spectrum::PowerLaw);
    let sketched = stream.sketch(22, 32, 0, 300);
    let r = packed(&stream.autocorrelation());
    let statistic = Statistic::Autocorrelation(&r);
    let problem = Problem::new(stream.error.view(), statistic, 5).unwrap();
    let solved = |share: f64| {
        let problem = problem.with_shrinkage(share).unwrap();
        let (mut a, mut b) = (Matrix::zeros(28, 5), Matrix::zeros(5, 20));
        let mut workspace = vec![0.0; reconstruct_workspace_len(28, 20, 5)];
        let report = reconstruct(
            Method::Exact,
            &problem,
            a.view_mut(),
            b.view_mut(),
            &mut [],
            &mut workspace,
        );
        report.unwrap();
        &a * &b
    };
    for share in [0.0, 0.2, 1.0] {
        let found = correct(&stream, &sketched, 5, Some(share));
        let (c, expected) = (&found.a * &found.b, solved(share));
        let gap = (&c - &expected).norm() / expected.norm();
        assert!(gap <= 1e-4, "{share}: {gap:e}");
        let f = left(&stream, &found);
        let slack = ROUNDING * found.report.error_without;
        assert!(found.report.error_least - slack <= f && f <= found.report.error_most + slack);
    }
    // A large share gives another correction, so that the comparison says something.
    let apart = (&solved(0.0) - &solved(1.0)).norm() / solved(0.0).norm();
    assert!(apart > 1e-2, "{apart:e}");
    let plain = correct(&stream, &sketched, 5, None);
    let gap = (&(&plain.a * &plain.b) - &solved(0.0)).norm() / solved(0.0).norm();
    assert!(gap <= 1e-4, "{gap:e}");
}
