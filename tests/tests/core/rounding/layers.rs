//! What the roundings are worth on inputs as layers have them.

use qera_core::dtype::FloatDtype;
use qera_core::quantize::round::{MetricOptions, ScaleSearch, damped_metric};
use qera_core::quantize::{Grid, Int, Mxint, Q4_0};
use qera_tests::layer_input::{Input, Population};
use qera_tests::matrix::Matrix;
use qera_tests::spectra::{packed, uniform};

use super::{cost, descended, to_nearest, with_feedback};

const M: usize = 96;

fn grids() -> [Grid; 4] {
    [
        Grid::Mxint(Mxint::new(3, 32).unwrap()),
        Grid::Mxint(Mxint::new(2, 16).unwrap()),
        Grid::Int(Int::new(3, 32, FloatDtype::F16).unwrap().with_zero_points()),
        Grid::Q4_0(Q4_0),
    ]
}

fn metric(input: Input) -> Matrix {
    let r = Population::new(input, M).autocorrelation(input.rows(M), 3);
    let mut metric = Matrix::zeros(M, M);
    let options = MetricOptions::default();
    damped_metric(
        &packed(&Matrix::from_faer(r.as_ref())),
        &options,
        metric.view_mut(),
    )
    .unwrap();
    metric
}

/// 48 columns; no theorem for any one of them, but far from chance for their sum.
#[test]
fn feedback_costs_less_than_nearest_and_descent_less_than_feedback() {
    let weight: Vec<f32> = (uniform(M, 48, 8).as_slice().iter())
        .zip(uniform(M, 48, 9).as_slice())
        .map(|(x, y)| (0.02 * (x + y)) as f32)
        .collect();
    let mut logarithms = Vec::new();
    for input in [Input::Natural, Input::Outliers, Input::RankDeficient] {
        let metric = metric(input);
        for grid in grids() {
            let nearest = to_nearest(&metric, &grid, &weight).loss;
            let first = with_feedback(&metric, &grid, ScaleSearch::First, &weight).loss;
            let mut all = with_feedback(&metric, &grid, ScaleSearch::All, &weight);
            let searched = all.loss;
            let report = descended(&metric, &grid, &weight, &mut all);
            let ends = [first, searched, report.after].map(|loss| loss / nearest);
            println!(
                "{input:?} {grid}: {ends:?} of nearest, {} codes",
                report.changed
            );
            logarithms.push(ends[0].ln());
            assert!(ends[1] < ends[0].min(0.8), "{input:?} {grid}: {ends:?}");
            assert!(ends[2] < ends[1], "{input:?} {grid}: {ends:?}");
            assert!(
                (report.after - cost(&metric, &weight, &all.values)).abs() < 1e-9 * report.after
            );
        }
    }
    // Without a choice of scales what is owed runs into the ends of the levels: some cases lose.
    let mean = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
    assert!(mean.exp() < 0.9, "{}", mean.exp());
}
