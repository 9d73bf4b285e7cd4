//! Rounding to nearest, with feedback, by descent; the metrics that it goes by.

use crate::{all_close, close};
use nalgebra::{DMatrixView, DMatrixViewMut};
use qera_core::linalg::cholesky;
use qera_core::quantize::round::{
    MetricOptions, ScaleSearch, damped_metric, descent, descent_workspace_len, feedback,
    feedback_workspace_len, nearest, projected_metric, projected_metric_workspace_len,
};
use qera_core::quantize::{Candidates, Grid, Mxint};

pub fn metrics() -> bool {
    let options = MetricOptions {
        base_share: 0.0,
        ..MetricOptions::default()
    };
    let (mut whole, mut left) = ([0.0; 4], [0.0; 4]);
    let mut workspace = [0.0; projected_metric_workspace_len(2, 1)];
    let damped = damped_metric(
        &[2.0, 0.0, 4.0],
        &options,
        DMatrixViewMut::from_slice(&mut whole, 2, 2),
    );
    let projected = projected_metric(
        &[2.0, 0.0, 4.0],
        DMatrixView::from_slice(&[3.0, 0.0], 2, 1),
        &options,
        DMatrixViewMut::from_slice(&mut left, 2, 2),
        &mut workspace,
    );
    damped.is_ok()
        && all_close(&whole, &[2.03, 0.0, 0.0, 4.03], 1e-15)
        && projected.is_ok_and(|report| report.rank == 1)
        && all_close(&left, &[0.03, 0.0, 0.0, 4.03], 1e-15)
}

pub fn roundings() -> bool {
    let Ok(mxint) = Mxint::new(3, 2) else {
        return false;
    };
    let (grid, weight, metric) = (Grid::Mxint(mxint), [0.7, 1.2], [1.0, 0.9, 0.9, 1.0]);
    let mut levels = [Candidates::first(&Grid::candidates(&grid, &weight))];
    let (mut values, mut factor) = ([0.0; 2], metric);
    let to_nearest = nearest(&grid, &weight, 2, &mut values, &mut levels);
    let nearest_values = values;
    let report = descent(
        DMatrixView::from_slice(&metric, 2, 2),
        &grid,
        &weight,
        &mut values,
        &levels,
        &mut [0.0; descent_workspace_len(2)],
    );
    let descended = values;
    let factored = cholesky(DMatrixViewMut::from_slice(&mut factor, 2, 2));
    let loss = feedback(
        DMatrixView::from_slice(&factor, 2, 2),
        &grid,
        ScaleSearch::First,
        &weight,
        &mut values,
        &mut levels,
        &mut [0.0; feedback_workspace_len(2, 2)],
    );
    to_nearest == Ok(())
        && nearest_values == [0.5, 1.0]
        && report.is_ok_and(|report| report.changed == 1 && close(report.after, 0.022, 1e-7))
        && descended == [1.0, 1.0]
        && factored.is_ok()
        && loss.is_ok_and(|loss| close(loss, 0.022, 1e-7))
        && values == [1.0, 1.0]
}
