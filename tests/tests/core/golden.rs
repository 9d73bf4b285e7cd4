//! qera-core alone on real layers, from rows to factors: statistics, quantizer and reconstruction
//! as a device would chain them, against the objective of the published program and the optimum in
//! double precision.

use qera_core::packed::packed_len;
use qera_core::reconstruct::{
    Method, Problem, Statistic, output_error, output_error_workspace_len, reconstruct,
    reconstruct_workspace_len,
};
use qera_core::rows::Rows;
use qera_core::statistics::{Autocorrelation, BatchMaxMeanAbs};
use qera_tests::matrix::Matrix;
use qera_tests::precision::{GOLDEN_OBJECTIVE, GOLDEN_OPTIMUM};
use qera_tests::quantization::quantized;
use qera_tests::reference::{
    GOLDEN_FORMATS, GoldenFormat, LAYERS, ReferenceLayer, reference_folder,
};
use qera_tests::tier;

/// Each method, and its name in golden.json.
const METHODS: [(Method, &str); 4] = [
    (Method::Exact, "qera_exact"),
    (Method::Approx, "qera_approx"),
    (Method::Lqer, "lqer"),
    (Method::ZeroQuantV2, "zeroquant_v2"),
];

/// What a device gathers of the rows.
struct GatheredStatistics {
    packed: Vec<f64>,
    /// The scale of LQER.
    scale: Vec<f64>,
}

impl GatheredStatistics {
    /// Gathers the layer's rows in four batches, as the published run did.
    fn of(layer: &ReferenceLayer) -> Self {
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
        Self { packed, scale }
    }
}

/// W; a row-major `[out, in]` weight is the column-major in x out matrix.
fn weight(layer: &ReferenceLayer) -> Matrix {
    let weight = layer.weight.iter().map(|w| f64::from(*w)).collect();
    Matrix::from_columns(layer.in_features, layer.out_features, weight)
}

/// E in f64.
fn error(layer: &ReferenceLayer, format: GoldenFormat) -> Matrix {
    let m = layer.in_features;
    let quantized = quantized(&layer.weight, m, format.element_bits, format.block_size);
    let pairs = layer.weight.iter().zip(quantized);
    let error = pairs.map(|(w, q)| f64::from(*w) - f64::from(q)).collect();
    Matrix::from_columns(m, layer.out_features, error)
}

#[test]
fn every_method_reaches_the_published_objective() {
    let Some(folder) = reference_folder("every_method_reaches_the_published_objective") else {
        return;
    };
    let formats = tier::cases(&GOLDEN_FORMATS[1..2], &GOLDEN_FORMATS);
    let ranks = tier::cases(&[32][..], &[8, 32]);
    for name in LAYERS {
        let layer = ReferenceLayer::load(&folder, name);
        let (statistics, weight) = (GatheredStatistics::of(&layer), weight(&layer));
        for format in formats {
            let error = error(&layer, *format);
            let official = &layer.golden["formats"][format.name];
            for rank in ranks {
                let statistic = Statistic::Autocorrelation(&statistics.packed);
                let problem = Problem::new(error.view(), statistic, *rank).unwrap();
                let problem = problem.with_weight(weight.view()).unwrap();
                let problem = problem.with_scale(&statistics.scale).unwrap();
                check(&problem, official, &format!("{name} {}", format.name));
            }
        }
    }
}

/// Every method against golden.json, exact against the optimum and the other methods.
fn check(problem: &Problem<'_>, official: &serde_json::Value, name: &str) {
    let rank = problem.rank().to_string();
    let mut errors = Vec::new();
    for (method, key) in METHODS {
        let expected = official["methods"][key][&rank]["obj_f64"].as_f64().unwrap();
        let f = solve(method, problem);
        let gap = (f.sqrt() / expected - 1.0).abs();
        assert!(gap <= GOLDEN_OBJECTIVE, "{name} {method} {rank}: {gap:e}");
        errors.push(f);
    }
    let optimum = official["optimal_f64"][&rank].as_f64().unwrap();
    let excess = errors[0].sqrt() / optimum - 1.0;
    assert!(excess <= GOLDEN_OPTIMUM, "{name} {rank}: {excess:e}");
    let is_best = errors.iter().all(|f| errors[0] <= *f);
    assert!(is_best, "{name} {rank}: {errors:?}");
    let none = official["w_only"].as_f64().unwrap();
    let without = solve(Method::WeightOnly, problem).sqrt();
    let gap = (without / none - 1.0).abs();
    assert!(gap <= GOLDEN_OBJECTIVE, "{without} {none}");
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
