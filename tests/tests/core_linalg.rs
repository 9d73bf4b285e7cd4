//! Properties of the decompositions of qera-core, against an independent oracle (faer) and against themselves, on spectra
//! that break careless code. Each routine gets exactly the workspace that it asks for.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use proptest::prelude::*;
use qera_core::linalg::{
    BlockKrylovError, BlockKrylovOptions, BlockKrylovReport, JACOBI_MAX_SWEEPS, JacobiEigenError,
    JacobiSvdError, JacobiSvdReport, NewtonSchulzError, NewtonSchulzLimits, NewtonSchulzReport,
    block_krylov, block_krylov_kept, block_krylov_workspace_len, jacobi_eigen,
    jacobi_eigen_workspace_len, jacobi_svd, jacobi_svd_workspace_len, newton_schulz,
    newton_schulz_workspace_len,
};
use qera_tests::matrix::Matrix;
use qera_tests::precision::{
    EIGEN_ORTHOGONALITY, EIGEN_REBUILD, EIGEN_VALUES, KRYLOV_CAPTURED, KRYLOV_ORTHOGONALITY,
    KRYLOV_ROUNDING, ROOT_INVERSE, ROOT_SQUARED, SVD_GRADED, SVD_ORTHOGONALITY, SVD_REBUILD,
    SVD_VALUES, allowed,
};
use qera_tests::spectra::{Spectrum, orthonormal, spectrum, symmetric, uniform};

fn descending(values: &[f64]) -> bool {
    values.windows(2).all(|pair| pair[0] >= pair[1])
}

#[track_caller]
fn within(error: f64, units: f64, n: usize, norm: f64) {
    let bound = allowed(units, n, norm);
    assert!(
        error <= bound,
        "{error:e} is {:.2} units of n eps norm, {units} are allowed",
        units * error / bound
    );
}

// Jacobi, symmetric

fn eigen(a: &Matrix) -> Result<(Vec<f64>, Matrix), JacobiEigenError> {
    let n = a.nrows();
    let (mut a, mut values, mut vectors) = (a.clone(), vec![0.0; n], Matrix::zeros(n, n));
    let mut workspace = vec![0.0; jacobi_eigen_workspace_len(n)];
    jacobi_eigen(
        a.view_mut(),
        &mut values,
        vectors.view_mut(),
        &mut workspace,
        JACOBI_MAX_SWEEPS,
    )?;
    Ok((values, vectors))
}

fn oracle_eigenvalues(a: &Matrix) -> Vec<f64> {
    let mut values = a
        .to_faer()
        .self_adjoint_eigenvalues(faer::Side::Lower)
        .unwrap();
    values.reverse();
    values
}

fn check_eigen(a: &Matrix) {
    let (n, norm) = (a.nrows(), a.norm());
    let (values, vectors) = eigen(a).unwrap();
    let rebuilt = &(&vectors * &Matrix::diagonal(&values)) * &vectors.transpose();
    within((&rebuilt - a).norm(), EIGEN_REBUILD, n, norm);
    within(vectors.orthogonality_defect(), EIGEN_ORTHOGONALITY, n, 1.0);
    assert!(descending(&values));
    for (value, oracle) in values.iter().zip(oracle_eigenvalues(a)) {
        within((value - oracle).abs(), EIGEN_VALUES, n, norm);
    }
}

#[test]
fn eigen_rebuilds_every_spectrum() {
    for kind in Spectrum::ALL {
        for n in [1, 2, 3, 16, 61, 130] {
            check_eigen(&symmetric(&spectrum(kind, n), n as u64));
        }
    }
}

#[test]
fn eigen_takes_special_matrices() {
    for a in [
        Matrix::zeros(5, 5),
        Matrix::identity(7),
        Matrix::filled(6, 6, 1.0),
        Matrix::from_fn(4, 4, |i, j| if i + j == 3 { 1.0 } else { 0.0 }),
        symmetric(&spectrum(Spectrum::Flat, 9), 3).scale(1e300),
        symmetric(&spectrum(Spectrum::Flat, 9), 3).scale(1e-300),
    ] {
        check_eigen(&a);
    }
    let (values, _) = eigen(&Matrix::zeros(0, 0)).unwrap();
    assert!(values.is_empty());
}

/// `D B D` with a well-conditioned `B` has eigenvalues over sixteen decades; Jacobi gets each of them to full relative
/// accuracy (a tridiagonal method only relative to the largest).
#[test]
fn eigen_is_relatively_accurate_when_graded() {
    let n = 9;
    let b = symmetric(&spectrum(Spectrum::Flat, n), 5);
    let factor = b.to_faer().llt(faer::Side::Lower).unwrap();
    let factor = Matrix::from_faer(factor.L());
    let scale: Vec<f64> = (0..9).map(|i| 10.0_f64.powi(-i)).collect();
    let graded = Matrix::from_fn(n, n, |i, j| scale[i] * b[(i, j)] * scale[j]);
    let (values, _) = eigen(&graded).unwrap();
    let (_, sigma, _, _) = svd(&Matrix::from_fn(n, n, |i, j| factor[(j, i)] * scale[j])).unwrap();
    for (value, sigma) in values.iter().zip(&sigma) {
        within((value - sigma * sigma).abs(), SVD_GRADED, n, *value);
    }
}

#[test]
fn eigen_refuses_by_value() {
    let mut a = Matrix::identity(3);
    a[(2, 1)] = f64::NAN;
    assert_eq!(
        eigen(&a),
        Err(JacobiEigenError::NonFinite { row: 2, column: 1 })
    );
    assert!(matches!(
        eigen(&Matrix::zeros(2, 3)),
        Err(JacobiEigenError::Shape(_))
    ));

    let run = |values: usize, workspace: usize, sweeps: usize| {
        let mut a = symmetric(&[3.0, 2.0, 1.0], 1);
        jacobi_eigen(
            a.view_mut(),
            &mut vec![0.0; values],
            Matrix::zeros(3, 3).view_mut(),
            &mut vec![0.0; workspace],
            sweeps,
        )
    };
    assert!(run(3, 6, 40).is_ok());
    assert!(matches!(run(2, 6, 40), Err(JacobiEigenError::Shape(_))));
    assert!(matches!(run(3, 5, 40), Err(JacobiEigenError::Workspace(_))));
    assert!(matches!(
        run(3, 6, 1),
        Err(JacobiEigenError::NoConvergence { sweeps: 1, .. })
    ));
}

// Jacobi, singular values

type Svd = (Matrix, Vec<f64>, Matrix, JacobiSvdReport);

fn svd(a: &Matrix) -> Result<Svd, JacobiSvdError> {
    let columns = a.ncols();
    let (mut u, mut sigma) = (a.clone(), vec![0.0; columns]);
    let mut v = Matrix::zeros(columns, columns);
    let mut workspace = vec![0.0; jacobi_svd_workspace_len(columns)];
    let report = jacobi_svd(
        u.view_mut(),
        &mut sigma,
        v.view_mut(),
        &mut workspace,
        JACOBI_MAX_SWEEPS,
    )?;
    Ok((u, sigma, v, report))
}

fn check_svd(a: &Matrix) {
    let (n, norm) = (a.nrows(), a.norm());
    let (u, sigma, v, report) = svd(a).unwrap();
    let rebuilt = &(&u * &Matrix::diagonal(&sigma)) * &v.transpose();
    within((&rebuilt - a).norm(), SVD_REBUILD, n, norm);
    within(v.orthogonality_defect(), SVD_ORTHOGONALITY, n, 1.0);
    // U is a partial isometry: orthonormal where a singular value is not zero, zero where it is.
    let used = report.nonzero;
    within(
        u.leading(used).orthogonality_defect(),
        SVD_ORTHOGONALITY,
        n,
        1.0,
    );
    assert!(u.as_slice()[used * n..].iter().all(|x| *x == 0.0));
    assert!(descending(&sigma) && sigma.iter().all(|x| *x >= 0.0));
    // The oracle does not scale, so it gets the matrix at norm 1.
    let unit = a.scale(if norm > 0.0 { 1.0 / norm } else { 1.0 });
    for (value, oracle) in sigma.iter().zip(unit.to_faer().singular_values().unwrap()) {
        let oracle = oracle * norm;
        within((value - oracle).abs(), SVD_VALUES, n, norm);
    }
}

#[test]
fn svd_rebuilds_every_spectrum() {
    for kind in Spectrum::SEMI_DEFINITE {
        for (rows, columns) in [(1, 1), (3, 2), (17, 17), (90, 40), (64, 64)] {
            let (left, right) = (
                orthonormal(rows, columns, 7),
                orthonormal(columns, columns, 8),
            );
            let sigma = Matrix::diagonal(&spectrum(kind, columns));
            check_svd(&(&(&left * &sigma) * &right.transpose()));
        }
    }
}

#[test]
fn svd_takes_special_matrices() {
    for a in [
        Matrix::zeros(5, 3),
        Matrix::filled(6, 4, 2.0),
        Matrix::identity(4).scale(1e-300),
        uniform(5, 5, 1).scale(1e300),
    ] {
        check_svd(&a);
    }
    assert_eq!(svd(&Matrix::zeros(5, 3)).unwrap().3.nonzero, 0);
}

/// Columns scaled over 150 decades: every singular value keeps its digits. The reference is the same product of orthogonal
/// and triangular factors, whose determinant and largest value are known.
#[test]
fn svd_is_relatively_accurate_with_graded_columns() {
    let n = 6;
    let b = symmetric(&spectrum(Spectrum::Flat, n), 11);
    let (_, plain, _, _) = svd(&b).unwrap();
    let scale: Vec<f64> = (0..6).map(|j| 2.0_f64.powi(-100 * j)).collect();
    let (_, sigma, _, _) = svd(&Matrix::from_fn(n, n, |i, j| b[(i, j)] * scale[j])).unwrap();
    // The product of the singular values is |det|, and powers of two scale it exactly.
    let product: f64 = sigma.iter().zip(&scale).map(|(s, d)| s / d).product();
    let expected: f64 = plain.iter().product();
    within((product - expected).abs(), SVD_GRADED, n, expected);
}

#[test]
fn svd_refuses_by_value() {
    assert_eq!(
        svd(&Matrix::zeros(2, 3)).unwrap_err(),
        JacobiSvdError::Wide {
            rows: 2,
            columns: 3
        }
    );
    let mut a = Matrix::zeros(3, 2);
    a[(1, 1)] = f64::INFINITY;
    assert_eq!(
        svd(&a).unwrap_err(),
        JacobiSvdError::NonFinite { row: 1, column: 1 }
    );

    let run = |sigma: usize, workspace: usize, sweeps: usize| {
        jacobi_svd(
            uniform(4, 3, 2).view_mut(),
            &mut vec![0.0; sigma],
            Matrix::zeros(3, 3).view_mut(),
            &mut vec![0.0; workspace],
            sweeps,
        )
    };
    assert!(run(3, 3, 40).is_ok());
    assert!(matches!(run(2, 3, 40), Err(JacobiSvdError::Shape(_))));
    assert!(matches!(run(3, 2, 40), Err(JacobiSvdError::Workspace(_))));
    assert!(matches!(
        run(3, 3, 1),
        Err(JacobiSvdError::NoConvergence { sweeps: 1, .. })
    ));
}

// Newton-Schulz

type Roots = (Matrix, Matrix, NewtonSchulzReport);

fn roots(a: &Matrix) -> Result<Roots, NewtonSchulzError> {
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
    Ok((root, inverse, report))
}

#[test]
fn roots_square_and_invert() {
    for n in [1, 2, 5, 40, 96] {
        for decades in [0.0, 2.0, 6.0, 9.0] {
            let values: Vec<f64> = (0..n)
                .map(|i| 3.0 * 10.0_f64.powf(-decades * i as f64 / n.max(2) as f64))
                .collect();
            let a = symmetric(&values, n as u64);
            let (root, inverse, report) = roots(&a).unwrap();
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

// Block Krylov

type Krylov = (Vec<f64>, Matrix, BlockKrylovReport);

fn krylov(g: &Matrix, wanted: usize, start: Option<&Matrix>) -> Result<Krylov, BlockKrylovError> {
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
    Ok((values, vectors, report))
}

fn check_krylov(g: &Matrix, wanted: usize) -> BlockKrylovReport {
    let (values, vectors, report) = krylov(g, wanted, None).unwrap();
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

/// The Krylov space of these is smaller than the basis: columns collapse and must be replaced, not divided by zero.
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
    let (_, start, _) = krylov(&g, 16, None).unwrap();
    let moved = &g + &symmetric(&spectrum(Spectrum::PowerLaw, 400), 13).scale(0.01);
    let moved_cold = check_krylov(&moved, 16);
    let (values, _, warm) = krylov(&moved, 16, Some(&start)).unwrap();
    let best: f64 = oracle_eigenvalues(&moved)[..16].iter().sum();
    let captured: f64 = values[..16].iter().sum();
    assert!((best - captured) / (moved.trace() - best) <= KRYLOV_CAPTURED);
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
    assert!(none.0.iter().all(|x| *x == 0.0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn eigen_holds_for_any_matrix(n in 1_usize..24, seed in any::<u64>(), exponent in -40_i32..40) {
        check_eigen(&uniform(n, n, seed).scale(2.0_f64.powi(exponent)).symmetrised());
    }

    #[test]
    fn svd_holds_for_any_matrix(columns in 1_usize..16, extra in 0_usize..16, seed in any::<u64>(), zeroed in 0_usize..4) {
        let mut a = uniform(columns + extra, columns, seed);
        for j in 0..zeroed.min(columns) {
            a.view_mut().column_mut(j).fill(0.0);
        }
        check_svd(&a);
    }

    #[test]
    fn krylov_holds_for_any_operator(n in 1_usize..140, eighths in 1_usize..5, seed in any::<u64>()) {
        let x = uniform(n + 3, n, seed);
        check_krylov(&(&x.transpose() * &x).symmetrised(), (n * eighths / 8).max(1));
    }
}
