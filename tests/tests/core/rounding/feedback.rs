//! Rounding with feedback.

use proptest::prelude::*;
use qera_core::quantize::round::ScaleSearch;
use qera_core::quantize::{Grid, Mxint, Q4_0};
use qera_tests::matrix::Matrix;

use super::{any_case, are_levels, cost, to_nearest, with_feedback};
use crate::grids::any_grid;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// No input owes another anything.
    #[test]
    fn under_a_diagonal_it_is_nearest(case in any_case(), grid in any_grid()) {
        let m = case.metric.nrows();
        let diagonal = Matrix::from_fn(m, m, |i, j| if i == j { case.metric[(i, i)] } else { 0.0 });
        let found = with_feedback(&diagonal, &grid, ScaleSearch::First, &case.weight);
        let mut expected = to_nearest(&diagonal, &grid, &case.weight);
        prop_assert_eq!(&found.levels, &expected.levels);
        if grid == Grid::Q4_0(Q4_0) {
            // Nearest by the grid's levels, not by the rounding rule of its reference.
            let rows = case.weight.chunks(m).flat_map(|row| row.chunks(32));
            let blocks = rows.zip(&expected.levels);
            let values = blocks.flat_map(|(x, levels)| x.iter().map(|&x| levels.nearest(x)));
            expected.values = values.collect();
        }
        prop_assert_eq!(&found.values, &expected.values);
        let measured = cost(&diagonal, &case.weight, &expected.values);
        prop_assert!((found.loss - measured).abs() <= 1e-12 * measured);
    }

    /// The sum of the terms is the cost of the errors; values are levels, and can be packed.
    #[test]
    fn the_loss_is_what_it_says(case in any_case(), grid in any_grid(), all in any::<bool>()) {
        let search = if all { ScaleSearch::All } else { ScaleSearch::First };
        let found = with_feedback(&case.metric, &grid, search, &case.weight);
        let measured = cost(&case.metric, &case.weight, &found.values);
        // The terms are not smaller than their differences: cancellation costs the measure, too.
        let size = case.metric.trace() * case.weight.iter().map(|w| f64::from(w * w)).sum::<f64>();
        prop_assert!((found.loss - measured).abs() <= 1e-9 * measured + 1e-14 * size);
        let m = case.metric.nrows();
        prop_assert!(are_levels(&found, &grid, m));
        let rows = case.weight.len() / m;
        let (mut codes, mut scales) = (vec![0; grid.codes_len(rows, m)], vec![0; grid.scales_len(rows, m)]);
        grid.encode(&found.values, &found.levels, m, &mut codes, &mut scales).unwrap();
    }

    /// Where a column is one block the search has seen all that there is.
    #[test]
    fn the_search_never_costs_within_a_block(case in any_case(), bits in 2_u32..=8) {
        let grid = Grid::Mxint(Mxint::new(bits, case.metric.nrows()).unwrap());
        let first = with_feedback(&case.metric, &grid, ScaleSearch::First, &case.weight);
        let all = with_feedback(&case.metric, &grid, ScaleSearch::All, &case.weight);
        prop_assert!(all.loss <= first.loss);
    }

    /// The next block's candidates are those of its own targets, what the blocks behind it owe
    /// included: written out with plain loops.
    #[test]
    fn it_is_the_rounding_of_its_formula(case in any_case(), grid in any_grid()) {
        let m = case.metric.nrows();
        let found = with_feedback(&case.metric, &grid, ScaleSearch::All, &case.weight);
        let factor = super::lower_factor(&case.metric);
        let blocks = m.div_ceil(grid.block_size());
        for (column, weight) in case.weight.chunks(m).enumerate() {
            let values = &found.values[column * m..][..m];
            let target = |k: usize| {
                let owed = (k + 1..m).map(|j| {
                    (f64::from(weight[j]) - f64::from(values[j])) * factor[(j, k)] / factor[(k, k)]
                });
                f64::from(weight[k]) + owed.sum::<f64>()
            };
            for (k, &value) in values.iter().enumerate() {
                let levels = found.levels[column * blocks + k / grid.block_size()];
                let missed = (target(k) - f64::from(value)).abs();
                let step = f64::from(levels.step.abs());
                // The nearest level, but for rounding of the target.
                for other in [value + levels.step, value - levels.step] {
                    let is_level = levels.nearest(other) == other;
                    let better = (target(k) - f64::from(other)).abs();
                    prop_assert!(!is_level || missed <= better + 1e-5 * (step + target(k).abs()));
                }
            }
            let last = grid.block_size() * (blocks - 1);
            let candidates = grid.candidates(&weight[last..]);
            let chosen = &found.levels[column * blocks + blocks - 1];
            prop_assert!(candidates.as_slice().contains(chosen));
        }
    }
}

/// By hand: two inputs, H = [[4, 2], [2, 2]], L = [[2, 0], [1, 1]]; halves of a level.
#[test]
fn by_hand() {
    let metric = Matrix::from_rows(&[[4.0, 2.0], [2.0, 2.0]]);
    let grid = Grid::Mxint(Mxint::new(4, 2).unwrap());
    let found = with_feedback(&metric, &grid, ScaleSearch::First, &[1.1, 1.6]);
    // Step 1/4: 1.6 becomes 1.5 and owes 0.1 / 2 to the first: 1.15 becomes 1.25.
    assert_eq!(found.values, [1.25, 1.5]);
    assert!((found.loss - (0.1_f64.powi(2) + 4.0 * 0.1_f64.powi(2))).abs() < 1e-7);
}
