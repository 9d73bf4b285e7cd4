//! The worked example of the published program: m = 4, n = 3, k = 1, mxint with 2 bits and blocks
//! of 4.

use qera_core::reconstruct::{
    Method, Problem, ReconstructError, RootMethod, Statistic, reconstruct,
    reconstruct_workspace_len,
};
use qera_tests::matrix::Matrix;
use qera_tests::precision::GOLDEN;
use qera_tests::spectra::packed;

use super::{SolvedProblem, autocorrelation, close, solve, whiten};

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

struct WorkedExample {
    weight: Matrix,
    error: Matrix,
    packed: Vec<f64>,
}

fn worked_example() -> WorkedExample {
    let weight = Matrix::from_rows(&WEIGHT.map(|row| row.map(f64::from))).transpose();
    let error = &weight - &Matrix::from_rows(&QUANTIZED).transpose();
    WorkedExample {
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

fn check_golden(solved: &SolvedProblem) {
    close(solved.report.error_without, 0.811_339_999_8, GOLDEN);
    close(solved.report.error_with, 0.186_151_160_6, GOLDEN);
    let sigma = [0.790_688_838_4, 0.418_003_889_2, 0.106_882_688_9];
    check_sigma(solved, sigma);
    assert_eq!(
        (solved.report.spectrum_len, solved.report.rank_used),
        (3, 1)
    );
    let defect = &solved.correction() - &Matrix::from_rows(&GOLDEN_C);
    assert!(defect.norm() <= GOLDEN, "{:e}", defect.norm());
}

fn check_sigma(solved: &SolvedProblem, sigma: [f64; 3]) {
    for (value, sigma) in solved.spectrum.iter().zip(sigma) {
        close(value.sqrt(), sigma, GOLDEN);
    }
}

#[test]
fn golden_vector_of_every_method() {
    let golden = worked_example();
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
    let sigma = [0.740_224_410_8, 0.453_503_089_9, 0.168_709_126_6];
    check_sigma(&approx, sigma);
    let blind = solve(Method::ZeroQuantV2, &problem);
    close(blind.report.error_with, 0.205_132_546_7, GOLDEN);
    let sigma = [0.549_535_161_6, 0.322_721_335_8, 0.125_148_073_5];
    check_sigma(&blind, sigma);
    let none = solve(Method::WeightOnly, &problem);
    assert_eq!((none.report.rank_used, none.report.spectrum_len), (0, 0));
    close(none.report.error_with, none.report.error_without, 0.0);
    check_scales(&problem, &approx);
}

/// The normalised and the raw scale of LQER give the same correction; so does the square root of D
/// with QERA-approx.
fn check_scales(problem: &Problem<'_>, approx: &SolvedProblem) {
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
            problem,
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
