//! Reconstruction: the golden vectors, the two exact routes against each other, optimality, and inputs that break the
//! published program (singular statistics, dead channels, ranks that do not exist).
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use proptest::prelude::*;
use qera_core::packed::packed_len;
use qera_core::reconstruct::{
    Method, OutputErrorError, Problem, ProblemError, ReconstructError, Report, RootMethod,
    Statistic, WhitenedError, output_error, output_error_workspace_len, reconstruct,
    reconstruct_exact, reconstruct_whitened, reconstruct_workspace_len, whitened_workspace_len,
};
use qera_tests::matrix::Matrix;
use qera_tests::precision::{GOLDEN, ROUTES_AGREE, allowed};
use qera_tests::spectra::{Spectrum, packed, spectrum, symmetric, uniform};

/// What a solve gives back.
struct Solved {
    a: Matrix,
    b: Matrix,
    spectrum: Vec<f64>,
    report: Report,
}

impl Solved {
    fn correction(&self) -> Matrix {
        &self.a * &self.b
    }
}

fn solve(method: Method, problem: &Problem<'_>) -> Solved {
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
    Solved {
        a,
        b,
        spectrum,
        report,
    }
}

fn whiten(root: RootMethod, problem: &Problem<'_>) -> Result<Solved, WhitenedError> {
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
    Ok(Solved {
        a,
        b,
        spectrum,
        report,
    })
}

fn measured(problem: &Problem<'_>, solved: &Solved) -> f64 {
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

// The worked example of the published program: m = 4, n = 3, k = 1, mxint with 2 bits and blocks of 4.

/// Checkpoints hold 32 bits: the golden values are those of the rounded decimals.
const WEIGHT: [[f32; 4]; 3] = [
    [0.9, -0.31, 0.07, 0.52],
    [-0.44, 0.6, 0.23, -0.11],
    [0.18, -0.05, 0.8, -0.63],
];
const QUANTIZED: [[f64; 4]; 3] = [
    [0.5, -0.5, 0.0, 0.5],
    [-0.5, 0.5, 0.0, 0.0],
    [0.0, 0.0, 0.5, -0.5],
];
const ROWS: [[f64; 4]; 5] = [
    [1.0, 2.0, 0.0, -1.0],
    [0.5, -1.0, 3.0, 0.0],
    [2.0, 0.0, 1.0, 1.0],
    [-1.0, 1.0, 0.5, 4.0],
    [0.0, -2.0, 1.0, 0.5],
];

struct Golden {
    weight: Matrix,
    error: Matrix,
    packed: Vec<f64>,
}

fn golden() -> Golden {
    let weight = Matrix::from_rows(&WEIGHT.map(|row| row.map(f64::from))).transpose();
    let error = &weight - &Matrix::from_rows(&QUANTIZED).transpose();
    Golden {
        weight,
        error,
        packed: packed(&autocorrelation(&Matrix::from_rows(&ROWS))),
    }
}

const GOLDEN_C: [[f64; 3]; 4] = [
    [0.2029711343, 0.1640895681, 0.2660998510],
    [0.0608751874, 0.0492138118, 0.0798087785],
    [0.1925206461, 0.1556409968, 0.2523990193],
    [-0.0709774907, -0.0573808972, -0.0930531318],
];

fn check_golden(solved: &Solved) {
    close(solved.report.error_without, 0.811_339_999_8, GOLDEN);
    close(solved.report.error_with, 0.186_151_160_6, GOLDEN);
    let sigma = [0.790_688_838_4, 0.418_003_889_2, 0.106_882_688_9];
    for (value, sigma) in solved.spectrum.iter().zip(sigma) {
        close(value.sqrt(), sigma, GOLDEN);
    }
    assert_eq!(
        (solved.report.spectrum_len, solved.report.rank_used),
        (3, 1)
    );
    let defect = &solved.correction() - &Matrix::from_rows(&GOLDEN_C);
    assert!(defect.norm() <= GOLDEN, "{:e}", defect.norm());
}

#[test]
fn golden_vector_of_every_method() {
    let golden = golden();
    let statistic = Statistic::Autocorrelation(&golden.packed);
    let problem = Problem::new(golden.error.view(), statistic, 1).unwrap();
    let problem = problem.with_weight(golden.weight.view()).unwrap();
    let exact = solve(Method::Exact, &problem);
    check_golden(&exact);
    check_golden(&whiten(RootMethod::NewtonSchulz, &problem).unwrap());
    check_golden(&whiten(RootMethod::JacobiEigen, &problem).unwrap());
    let product = &golden.weight.transpose() * &Matrix::from_rows(&ROWS).transpose();
    close(
        exact.report.output_power,
        product.norm().powi(2) / 5.0,
        1e-14,
    );

    let approx = solve(Method::Approx, &problem);
    close(approx.report.error_with, 0.193_870_589_1, GOLDEN);
    for (value, sigma) in
        approx
            .spectrum
            .iter()
            .zip([0.740_224_410_8, 0.453_503_089_9, 0.168_709_126_6])
    {
        close(value.sqrt(), sigma, GOLDEN);
    }
    let blind = solve(Method::ZeroQuantV2, &problem);
    close(blind.report.error_with, 0.205_132_546_7, GOLDEN);
    for (value, sigma) in
        blind
            .spectrum
            .iter()
            .zip([0.549_535_161_6, 0.322_721_335_8, 0.125_148_073_5])
    {
        close(value.sqrt(), sigma, GOLDEN);
    }
    let none = solve(Method::WeightOnly, &problem);
    assert_eq!((none.report.rank_used, none.report.spectrum_len), (0, 0));
    close(none.report.error_with, none.report.error_without, 0.0);

    // The normalised and the raw scale of LQER give the same correction; so does the square root of D with QERA-approx.
    let raw = [1.0, 1.5, 1.5, 1.833_333_3];
    let normalised = raw.map(|s| s * 0.738_548_9);
    let lqer = |scale: &[f64]| solve(Method::Lqer, &problem.with_scale(scale).unwrap());
    let gap = &lqer(&raw).correction() - &lqer(&normalised).correction();
    assert!(gap.norm() <= 1e-12);
    let roots = [1.25_f64, 2.0, 2.25, 3.65].map(f64::sqrt);
    close(
        lqer(&roots).report.error_with,
        approx.report.error_with,
        1e-13,
    );
    assert!(matches!(
        reconstruct(
            Method::LqerMean,
            &problem,
            Matrix::zeros(4, 1).view_mut(),
            Matrix::zeros(1, 3).view_mut(),
            &mut [],
            &mut vec![0.0; reconstruct_workspace_len(4, 3, 1)],
        ),
        Err(ReconstructError::MissingScale {
            method: Method::LqerMean
        })
    ));
}

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

/// Fewer rows than channels, dead channels, an all-zero site, no error at all, and ranks that do not exist: finite, never
/// above no correction, excess columns exactly zero, the reported error that of the factors.
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
fn check_sound(problem: &Problem<'_>, solved: &Solved, case: &str) {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// No method is ever worse than none, under statistics of any rank, and exact is never above another method.
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
