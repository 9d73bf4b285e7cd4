//! qera-core alone on real layers, from rows to factors: statistics, quantizer and reconstruction as a device would chain them,
//! against the objective of the published program and the optimum in double precision.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use qera_core::packed::packed_len;
use qera_core::quantize::Mxint;
use qera_core::reconstruct::{
    Method, Problem, Statistic, output_error, output_error_workspace_len, reconstruct,
    reconstruct_workspace_len,
};
use qera_core::rows::Rows;
use qera_core::statistics::{Autocorrelation, BatchMaxMeanAbs};
use qera_tests::matrix::Matrix;
use qera_tests::precision::{GOLDEN_OBJECTIVE, GOLDEN_OPTIMUM};
use qera_tests::reference::{LAYERS, ReferenceLayer, folder, load};

const FORMATS: [(&str, u32, usize); 3] = [
    ("mxint4_bs32", 4, 32),
    ("mxint3_bs32", 3, 32),
    ("mxint2_bs16", 2, 16),
];
const METHODS: [(Method, &str); 4] = [
    (Method::Exact, "qera_exact"),
    (Method::Approx, "qera_approx"),
    (Method::Lqer, "lqer"),
    (Method::ZeroQuantV2, "zeroquant_v2"),
];

/// Packed autocorrelation and LQER scale of the rows, in four batches as the published run had them.
fn statistics(layer: &ReferenceLayer) -> (Vec<f64>, Vec<f64>) {
    let m = layer.in_features;
    let (mut packed, mut scale) = (vec![0.0; packed_len(m)], vec![0.0; m]);
    let (mut lent, mut scratch) = (vec![0.0; m], vec![0.0; m]);
    let mut autocorrelation = Autocorrelation::new(&mut packed, m).unwrap();
    let mut magnitude = BatchMaxMeanAbs::new(&mut lent).unwrap();
    for batch in layer.rows.chunks_exact(layer.rows.len() / 4) {
        let rows = Rows::new(batch, m).unwrap();
        autocorrelation.update(&rows).unwrap();
        magnitude.update_batch(&rows, &mut scratch).unwrap();
    }
    magnitude.finish_scale(&mut scale).unwrap();
    (packed, scale)
}

/// `W` and `E`; a row-major `[out, in]` weight is the column-major in x out matrix.
fn weight_and_error(layer: &ReferenceLayer, bits: u32, block_size: usize) -> (Matrix, Matrix) {
    let (m, n) = (layer.in_features, layer.out_features);
    let mut quantized = vec![0.0; layer.weight.len()];
    let mxint = Mxint::new(bits, block_size).unwrap();
    mxint
        .quantize_dequantize(&layer.weight, m, &mut quantized)
        .unwrap();
    let weight: Vec<f64> = layer.weight.iter().map(|w| f64::from(*w)).collect();
    let error = weight
        .iter()
        .zip(quantized)
        .map(|(w, q)| w - f64::from(q))
        .collect();
    (
        Matrix::from_columns(m, n, weight),
        Matrix::from_columns(m, n, error),
    )
}

#[test]
fn every_method_reaches_the_published_objective() {
    let Some(folder) = folder("every_method_reaches_the_published_objective") else {
        return;
    };
    for name in LAYERS {
        let layer = load(&folder, name);
        let (packed, scale) = statistics(&layer);
        for (format, bits, block_size) in FORMATS {
            let (weight, error) = weight_and_error(&layer, bits, block_size);
            for rank in [8, 32] {
                let statistic = Statistic::Autocorrelation(&packed);
                let problem = Problem::new(error.view(), statistic, rank).unwrap();
                let problem = problem.with_weight(weight.view()).unwrap();
                let problem = problem.with_scale(&scale).unwrap();
                let official = &layer.golden["formats"][format];
                let rank = rank.to_string();
                let mut errors = Vec::new();
                for (method, key) in METHODS {
                    let expected = official["methods"][key][&rank]["obj_f64"].as_f64().unwrap();
                    let f = solve(method, &problem);
                    let gap = (f.sqrt() / expected - 1.0).abs();
                    assert!(
                        gap <= GOLDEN_OBJECTIVE,
                        "{name} {format} {method} {rank}: {gap:e}"
                    );
                    errors.push(f);
                }
                let optimum = official["optimal_f64"][&rank].as_f64().unwrap();
                let excess = errors[0].sqrt() / optimum - 1.0;
                assert!(
                    excess <= GOLDEN_OPTIMUM,
                    "{name} {format} {rank}: {excess:e}"
                );
                assert!(
                    errors.iter().all(|f| errors[0] <= *f),
                    "{name} {format} {rank}: {errors:?}"
                );
                let none = official["w_only"].as_f64().unwrap();
                let without = solve(Method::WeightOnly, &problem).sqrt();
                assert!(
                    (without / none - 1.0).abs() <= GOLDEN_OBJECTIVE,
                    "{without} {none}"
                );
            }
        }
    }
}

/// The reported error, which must be that of the factors.
fn solve(method: Method, problem: &Problem<'_>) -> f64 {
    let (m, n, rank) = (
        problem.in_features(),
        problem.out_features(),
        problem.rank(),
    );
    let (mut a, mut b) = (Matrix::zeros(m, rank), Matrix::zeros(rank, n));
    let mut workspace = vec![0.0; reconstruct_workspace_len(m, n, rank)];
    let report = reconstruct(
        method,
        problem,
        a.view_mut(),
        b.view_mut(),
        &mut [],
        &mut workspace,
    )
    .unwrap();
    let mut workspace = vec![0.0; output_error_workspace_len(m)];
    let direct = output_error(problem, a.view(), b.view(), &mut workspace).unwrap();
    assert!(
        (report.error_with / direct - 1.0).abs() < 1e-11,
        "{method}: {report:?} {direct}"
    );
    report.error_with
}
