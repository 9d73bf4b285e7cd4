//! To nearest, with levels.

use proptest::prelude::*;
use qera_core::quantize::round::nearest;
use qera_core::quantize::{Grid, Mxint};

use super::NONE;
use crate::grids::{any_grid, any_matrix, quantize};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_values_are_those_of_the_grid(weight in any_matrix(), grid in any_grid()) {
        let mut weight = weight;
        for x in &mut weight.values {
            if x.abs() < 2.0_f32.powi(-90) {
                *x = 0.0;
            }
        }
        let m = weight.in_features;
        let rows = weight.values.len() / m;
        let mut values = vec![f32::NAN; weight.values.len()];
        let mut levels = vec![NONE; rows * m.div_ceil(grid.block_size())];
        nearest(&grid, &weight.values, m, &mut values, &mut levels).unwrap();
        prop_assert_eq!(&values, &quantize(grid, &weight));
        let blocks = weight.values.chunks(m).flat_map(|row| row.chunks(grid.block_size()));
        for (block, levels) in blocks.zip(&levels) {
            prop_assert_eq!(*levels, grid.candidates(block).first());
        }
        let mut codes = vec![0; grid.codes_len(rows, m)];
        let mut scales = vec![0; grid.scales_len(rows, m)];
        grid.encode(&values, &levels, m, &mut codes, &mut scales).unwrap();
    }
}

/// Levels have a normal step: what lies far below 2^-94 becomes 0, which the format itself keeps.
#[test]
fn the_least_mxint_blocks_get_levels_that_can_be_used() {
    let grid = Grid::Mxint(Mxint::new(4, 2).unwrap());
    let tiny = [2.0_f32.powi(-110), 2.0_f32.powi(-111)];
    let (mut values, mut levels) = ([1.0; 2], [NONE]);
    nearest(&grid, &tiny, 2, &mut values, &mut levels).unwrap();
    assert_eq!(values, [0.0; 2]);
    assert_eq!(levels[0].step, 2.0_f32.powi(-96));
    grid.quantize_dequantize(&tiny, 2, &mut values).unwrap();
    assert_eq!(values, tiny);
}
