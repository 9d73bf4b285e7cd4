//! Rounding under a metric: what it costs, said and measured apart; what never gets worse.
#![expect(
    clippy::float_cmp,
    reason = "values are levels: equal as numbers or wrong"
)]

mod descent;
mod feedback;
mod layers;
mod metric;
mod nearest;
mod refusals;

use proptest::prelude::*;
use qera_core::linalg::cholesky;
use qera_core::quantize::round::descent::{DescentReport, descent, descent_workspace_len};
use qera_core::quantize::round::feedback::{ScaleSearch, feedback, feedback_workspace_len};
use qera_core::quantize::{Grid, Levels};
use qera_tests::matrix::Matrix;
use qera_tests::spectra::{Spectrum, spectrum, symmetric, uniform};

const NONE: Levels = Levels {
    step: 1.0,
    lowest: 0.0,
    highest: 0.0,
};

/// W~ and what was said of it.
#[derive(Debug)]
struct Rounded {
    values: Vec<f32>,
    levels: Vec<Levels>,
    loss: f64,
}

fn lower_factor(metric: &Matrix) -> Matrix {
    let mut factor = metric.clone();
    cholesky(factor.view_mut()).unwrap();
    factor
}

fn with_feedback(metric: &Matrix, grid: &Grid, search: ScaleSearch, weight: &[f32]) -> Rounded {
    let m = metric.nrows();
    let blocks = weight.len() / m * m.div_ceil(grid.block_size());
    let (mut values, mut levels) = (vec![f32::NAN; weight.len()], vec![NONE; blocks]);
    let mut workspace = vec![f64::NAN; feedback_workspace_len(m, grid.block_size())];
    let factor = lower_factor(metric);
    let loss = feedback(
        factor.view(),
        grid,
        search,
        weight,
        &mut values,
        &mut levels,
        &mut workspace,
    );
    Rounded {
        loss: loss.unwrap(),
        values,
        levels,
    }
}

fn to_nearest(metric: &Matrix, grid: &Grid, weight: &[f32]) -> Rounded {
    let m = metric.nrows();
    let blocks = weight.len() / m * m.div_ceil(grid.block_size());
    let (mut values, mut levels) = (vec![f32::NAN; weight.len()], vec![NONE; blocks]);
    qera_core::quantize::round::nearest(grid, weight, m, &mut values, &mut levels).unwrap();
    Rounded {
        loss: cost(metric, weight, &values),
        values,
        levels,
    }
}

fn descended(metric: &Matrix, grid: &Grid, weight: &[f32], rounded: &mut Rounded) -> DescentReport {
    let mut workspace = vec![f64::NAN; descent_workspace_len(metric.nrows())];
    let report = descent(
        metric.view(),
        grid,
        weight,
        &mut rounded.values,
        &rounded.levels,
        &mut workspace,
    );
    report.unwrap()
}

/// The sum of e^T H e, from the numbers.
fn cost(metric: &Matrix, weight: &[f32], values: &[f32]) -> f64 {
    let m = metric.nrows();
    let errors: Vec<f64> = (weight.iter().zip(values))
        .map(|(w, q)| f64::from(*w) - f64::from(*q))
        .collect();
    let error = Matrix::from_columns(m, weight.len() / m, errors);
    (&error.transpose() * &(metric * &error)).trace()
}

/// Whether every value is a level of its block.
fn are_levels(rounded: &Rounded, grid: &Grid, m: usize) -> bool {
    let rows = rounded.values.chunks(m);
    let mut blocks = rows.flat_map(|row| row.chunks(grid.block_size()));
    rounded.levels.iter().all(|levels| {
        let block = blocks.next().unwrap();
        block.iter().all(|&x| levels.nearest(x) == x)
    })
}

/// A metric with a weight of its width.
#[derive(Clone, Debug)]
struct Case {
    metric: Matrix,
    weight: Vec<f32>,
}

/// Any spectrum, damped, with channels of very different size; weights of checkpoints.
fn any_case() -> impl Strategy<Value = Case> {
    let kind = prop::sample::select(Spectrum::SEMI_DEFINITE.to_vec());
    (1_usize..70, 1_usize..4, any::<u64>(), kind, 0.0_f64..3.0).prop_map(
        |(m, columns, seed, kind, decades)| {
            let values: Vec<f64> = spectrum(kind, m).iter().map(|x| x + 1e-3).collect();
            let channel = |i: usize| 10.0_f64.powf(decades * (i as f64 * 1.7).sin());
            let plain = symmetric(&values, seed);
            let metric = Matrix::from_fn(m, m, |i, j| channel(i) * channel(j) * plain[(i, j)]);
            let weight = uniform(m, columns, seed ^ 1);
            let weight = weight.as_slice().iter().map(|x| 0.1 * *x as f32).collect();
            Case { metric, weight }
        },
    )
}
