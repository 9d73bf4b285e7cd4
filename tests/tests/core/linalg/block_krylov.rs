//! Block Krylov.

use proptest::prelude::*;
use qera_core::linalg::{
    BlockKrylovError, BlockKrylovOptions, BlockKrylovReport, block_krylov, block_krylov_kept,
    block_krylov_workspace_len,
};
use qera_tests::matrix::Matrix;
use qera_tests::precision::{KRYLOV_CAPTURED, KRYLOV_ORTHOGONALITY, KRYLOV_ROUNDING, allowed};
use qera_tests::spectra::{Spectrum, spectrum, symmetric, uniform};

use super::{descending, oracle_eigenvalues, within};

/// The largest eigenvalues and the vectors to them.
#[derive(Debug)]
struct RitzPairs {
    values: Vec<f64>,
    vectors: Matrix,
    report: BlockKrylovReport,
}

fn krylov(
    g: &Matrix,
    wanted: usize,
    start: Option<&Matrix>,
) -> Result<RitzPairs, BlockKrylovError> {
    let n = g.nrows();
    let kept = block_krylov_kept(n, wanted);
    let (mut values, mut vectors) = (vec![0.0; kept], Matrix::zeros(n, kept));
    let options = BlockKrylovOptions {
        trace: Some(g.trace()),
        ..BlockKrylovOptions::default()
    };
    let report = block_krylov(
        |x, mut y| y.gemm(1.0, &g.view(), &x, 0.0),
        wanted,
        &options,
        start.map(Matrix::view),
        &mut values,
        vectors.view_mut(),
        &mut vec![0.0; block_krylov_workspace_len(n, wanted)],
    )?;
    Ok(RitzPairs {
        values,
        vectors,
        report,
    })
}

fn check_krylov(g: &Matrix, wanted: usize) -> BlockKrylovReport {
    let RitzPairs {
        values,
        vectors,
        report,
    } = krylov(g, wanted, None).unwrap();
    let oracle = oracle_eigenvalues(g);
    let captured: f64 = values[..wanted].iter().sum();
    let best: f64 = oracle[..wanted].iter().sum();
    let bound = KRYLOV_CAPTURED * (g.trace() - best).max(0.0)
        + allowed(KRYLOV_ROUNDING, g.nrows(), g.trace());
    let excess = (best - captured).abs();
    assert!(excess <= bound, "{excess:e} of {bound:e}, {report:?}");
    within(
        vectors.orthogonality_defect(),
        KRYLOV_ORTHOGONALITY,
        g.nrows(),
        1.0,
    );
    assert!(descending(&values));
    report
}

#[test]
fn krylov_captures_what_the_oracle_does() {
    for kind in Spectrum::SEMI_DEFINITE {
        for (n, wanted) in [(3, 1), (40, 8), (150, 1), (150, 8), (300, 32)] {
            check_krylov(&symmetric(&spectrum(kind, n), wanted as u64), wanted);
        }
    }
}

/// A flat tail and a leading value 3.5e7 times the k-th, as massive activations make it.
#[test]
fn krylov_resolves_the_tail_behind_massive_values() {
    let mut values = spectrum(Spectrum::PowerLaw, 240);
    values[0] = 3.5e7 * values[15];
    values[1] = 1.0e6 * values[15];
    check_krylov(&symmetric(&values, 9), 16);
}

/// The Krylov space of these is smaller than the basis: columns collapse and must be replaced, not
/// divided by zero.
#[test]
fn krylov_survives_rank_collapse() {
    for g in [
        Matrix::zeros(120, 120),
        Matrix::identity(120).scale(2.5),
        symmetric(&[&[3.0; 2][..], &[0.0; 118]].concat(), 4),
        symmetric(&[&[3.0; 60][..], &[1.0; 60]].concat(), 4),
        Matrix::filled(120, 120, 1.0),
    ] {
        check_krylov(&g, 8);
    }
}

#[test]
fn krylov_warm_start_saves_products() {
    let g = symmetric(&spectrum(Spectrum::PowerLaw, 400), 12);
    let cold = check_krylov(&g, 16);
    let start = krylov(&g, 16, None).unwrap().vectors;
    let moved = &g + &symmetric(&spectrum(Spectrum::PowerLaw, 400), 13).scale(0.01);
    let moved_cold = check_krylov(&moved, 16);
    let warm = krylov(&moved, 16, Some(&start)).unwrap();
    let best: f64 = oracle_eigenvalues(&moved)[..16].iter().sum();
    let captured: f64 = warm.values[..16].iter().sum();
    assert!((best - captured) / (moved.trace() - best) <= KRYLOV_CAPTURED);
    let warm = warm.report;
    assert!(
        warm.columns_applied < moved_cold.columns_applied,
        "{warm:?} {moved_cold:?} {cold:?}"
    );
}

#[test]
fn krylov_refuses_by_value() {
    let g = symmetric(&spectrum(Spectrum::PowerLaw, 80), 3);
    assert!(matches!(
        krylov(&g, 81, None),
        Err(BlockKrylovError::TooMany {
            wanted: 81,
            order: 80
        })
    ));
    let short = Matrix::zeros(79, 4);
    assert!(matches!(
        krylov(&g, 4, Some(&short)),
        Err(BlockKrylovError::Shape(_))
    ));
    let broken = Matrix::filled(80, 80, f64::NAN);
    assert!(matches!(
        krylov(&broken, 4, None),
        Err(BlockKrylovError::NonFinite { .. })
    ));

    let run = |missing: usize, max_cycles: usize| {
        block_krylov(
            |x, mut y| y.gemm(1.0, &g.view(), &x, 0.0),
            4,
            &BlockKrylovOptions {
                max_cycles,
                tolerance: 0.0,
                trace: None,
            },
            None,
            &mut [0.0; 12],
            Matrix::zeros(80, 12).view_mut(),
            &mut vec![0.0; block_krylov_workspace_len(80, 4) - missing],
        )
    };
    assert!(matches!(run(1, 200), Err(BlockKrylovError::Workspace(_))));
    assert!(matches!(
        run(0, 1),
        Err(BlockKrylovError::NoConvergence { cycles: 1, .. })
    ));
    let none = krylov(&g, 0, None).unwrap();
    assert!(none.values.iter().all(|x| *x == 0.0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn krylov_holds_for_any_operator(n in 1_usize..140, eighths in 1_usize..5, seed in any::<u64>()) {
        let x = uniform(n + 3, n, seed);
        check_krylov(&(&x.transpose() * &x).symmetrised(), (n * eighths / 8).max(1));
    }
}
