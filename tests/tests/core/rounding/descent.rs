//! Coordinate descent on codes.

use proptest::prelude::*;
use qera_core::quantize::Grid;
use qera_core::quantize::round::ScaleSearch;

use super::{Case, Rounded, any_case, are_levels, cost, descended, to_nearest, with_feedback};
use crate::grids::any_grid;

fn check(case: &Case, grid: &Grid, mut rounded: Rounded) {
    let Case { metric, weight } = case;
    let size = metric.trace() * weight.iter().map(|w| f64::from(w * w)).sum::<f64>();
    let close = |x: f64, y: f64| (x - y).abs() <= 1e-10 * x.max(y) + 1e-14 * size;
    for _ in 0..40 {
        let before = rounded.values.clone();
        let measured = cost(metric, weight, &before);
        let report = descended(metric, grid, weight, &mut rounded);
        assert!(close(report.before, measured), "{report:?} {measured}");
        let measured = cost(metric, weight, &rounded.values);
        assert!(close(report.after, measured), "{report:?} {measured}");
        assert!(report.after <= report.before + 1e-14 * size, "{report:?}");
        let pairs = before.iter().zip(&rounded.values);
        assert_eq!(pairs.filter(|(x, y)| x != y).count(), report.changed);
        if report.changed == 0 {
            assert!(close(report.after, report.before));
            check_minimum(case, grid, &rounded);
            return;
        }
    }
    // 40 rounds without an end: each went down.
}

/// No other level of any one code costs less.
fn check_minimum(case: &Case, grid: &Grid, rounded: &Rounded) {
    let Case { metric, weight } = case;
    let m = metric.nrows();
    let blocks = m.div_ceil(grid.block_size());
    for (column, (weight, values)) in weight.chunks(m).zip(rounded.values.chunks(m)).enumerate() {
        let error = |j: usize| f64::from(weight[j]) - f64::from(values[j]);
        for i in 0..m {
            let levels = rounded.levels[column * blocks + i / grid.block_size()];
            let gradient: f64 = (0..m).map(|j| metric[(i, j)] * error(j)).sum();
            let size: f64 = (0..m).map(|j| (metric[(i, j)] * error(j)).abs()).sum();
            let mut integer = levels.lowest;
            while integer <= levels.highest {
                let change = f64::from(integer * levels.step) - f64::from(values[i]);
                let gain = 2.0 * change * gradient - change * change * metric[(i, i)];
                // Where two levels are as good, f32 may tell them apart or not.
                let blur = f64::from(values[i].abs() + levels.step.abs()) * metric[(i, i)];
                let allowed = change.abs() * (1e-12 * size + 1e-6 * blur);
                assert!(gain <= allowed, "{gain:e} by {change} at {i}, {allowed:e}");
                integer += 1.0;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn never_costs_from_nearest(case in any_case(), grid in any_grid()) {
        let rounded = to_nearest(&case.metric, &grid, &case.weight);
        check(&case, &grid, rounded);
    }

    #[test]
    fn never_costs_from_feedback(case in any_case(), grid in any_grid()) {
        let rounded = with_feedback(&case.metric, &grid, ScaleSearch::All, &case.weight);
        check(&case, &grid, rounded);
    }

    /// Levels are as they were, and values among them.
    #[test]
    fn values_stay_on_their_levels(case in any_case(), grid in any_grid()) {
        let mut rounded = to_nearest(&case.metric, &grid, &case.weight);
        descended(&case.metric, &grid, &case.weight, &mut rounded);
        prop_assert!(are_levels(&rounded, &grid, case.metric.nrows()));
    }

    /// Descent may begin at any numbers, whether they are levels or not.
    #[test]
    fn never_costs_from_what_is_no_level(case in any_case(), grid in any_grid(), factor in 0.1_f32..3.0) {
        let mut rounded = to_nearest(&case.metric, &grid, &case.weight);
        rounded.values = case.weight.iter().map(|w| factor * w).collect();
        let report = descended(&case.metric, &grid, &case.weight, &mut rounded);
        let size = case.metric.trace() * case.weight.iter().map(|w| f64::from(w * w)).sum::<f64>();
        prop_assert!(report.after <= report.before + 1e-14 * size);
    }
}
