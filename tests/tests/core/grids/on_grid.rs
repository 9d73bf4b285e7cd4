//! What could be a W~ is told from what could not.

use proptest::prelude::*;
use qera_core::dtype::FloatDtype;
use qera_core::pseudo_random::SplitMix64;
use qera_core::quantize::{Grid, Int, Levels, Mxint, Q4_0};

use super::{DTYPES, any_grid, any_matrix, quantize, rounded};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever levels the rounding chose, and what nearest rounding gives.
    #[test]
    fn every_rounded_weight_is_held(
        weight in any_matrix(),
        grid in any_grid(),
        picks in prop::collection::vec(0_usize..4, 1..9),
    ) {
        let mut picks = picks.into_iter().cycle();
        let choose = |of: &[Levels]| of[picks.next().unwrap() % of.len()];
        let (values, _) = rounded(&weight, grid, choose);
        prop_assert!(grid.holds(&values, weight.in_features));
        prop_assert!(grid.holds(&quantize(grid, &weight), weight.in_features));
    }
}

/// Weights, and W~ with one value that was not rounded.
#[test]
fn what_is_not_rounded_is_seen() {
    let mut grids = vec![Grid::Q4_0(Q4_0)];
    for bits in 2..=8 {
        grids.push(Grid::Mxint(Mxint::new(bits, 32).unwrap()));
        for int in DTYPES.map(|dtype| Int::new(bits, 32, dtype).unwrap()) {
            grids.extend([int, int.with_zero_points()].map(Grid::Int));
        }
    }
    let mut sequence = SplitMix64::new(7);
    for grid in grids {
        let values = [(); 33].map(|()| sequence.next_symmetric() as f32);
        assert!(!grid.holds(&values, 33), "{grid}");
        let mut quantized = [0.0; 33];
        grid.quantize_dequantize(&values, 33, &mut quantized)
            .unwrap();
        assert!(grid.holds(&quantized, 33), "{grid}");
        let changed = quantized.iter_mut().find(|x| **x != 0.0).unwrap();
        *changed *= 1.003; // An integer up to 255 becomes none.
        assert!(!grid.holds(&quantized, 33), "{grid}");
    }
}

#[test]
fn ranges_are_those_of_the_format() {
    let int3 = Int::new(3, 32, FloatDtype::F16).unwrap();
    let [symmetric, offset, q4_0] = [
        Grid::Int(int3),
        Grid::Int(int3.with_zero_points()),
        Grid::Q4_0(Q4_0),
    ];
    // 1 and 0 in their midst: the scale is 1, or an integer's part of it.
    let held = |grid: Grid, ends: [f32; 2]| grid.holds(&[ends[0], 0.0, 1.0, 2.0, ends[1]], 5);
    assert!(held(symmetric, [-4.0, 3.0]) && !held(symmetric, [-3.0, 4.0]));
    assert!(!held(symmetric, [-5.0, 3.0]));
    assert!(held(offset, [1.0, 7.0]) && held(offset, [-5.0, 2.0]) && !held(offset, [-6.0, 2.0]));
    assert!(held(q4_0, [-8.0, 7.0]) && held(q4_0, [-7.0, 8.0]) && !held(q4_0, [-8.0, 8.0]));
}

#[test]
fn what_is_no_number_is_on_no_grid() {
    let mxint = Grid::Mxint(Mxint::new(4, 32).unwrap());
    let int = Grid::Int(Int::new(4, 32, FloatDtype::F32).unwrap());
    for grid in [mxint, int, Grid::Q4_0(Q4_0)] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!grid.holds(&[bad], 1) && !grid.holds(&[1.0, bad], 2));
        }
        assert!(grid.holds(&[0.0, -0.0], 2) && grid.holds(&[], 2));
        assert!(!grid.holds(&[0.0; 3], 2) && !grid.holds(&[0.0], 0));
    }
}
