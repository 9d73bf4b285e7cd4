//! Values and packed codes of every grid: the same numbers.

use proptest::prelude::*;
use qera_core::quantize::{Grid, Levels};
use qera_tests::generate::GeneratedWeight;

use super::{any_grid, any_matrix, quantize, rounded};

/// Packs into exactly the lengths that the grid asks for, and holds what comes back against it.
fn check_round_trip(grid: Grid, weight: &GeneratedWeight, values: &[f32], levels: &[Levels]) {
    let in_features = weight.in_features;
    let rows = values.len() / in_features;
    let mut codes = vec![0xa5; grid.codes_len(rows, in_features)];
    let mut scales = vec![0xa5; grid.scales_len(rows, in_features)];
    grid.encode(values, levels, in_features, &mut codes, &mut scales)
        .unwrap();
    let mut out = vec![f32::NAN; values.len()];
    grid.decode(&codes, &scales, in_features, &mut out).unwrap();
    for (out, value) in out.iter().zip(values) {
        assert!(out.to_bits() == value.to_bits() || (*out == 0.0 && *value == 0.0));
    }
    let nothing = Levels {
        step: 1.0,
        lowest: 0.0,
        highest: 0.0,
    };
    let mut found = vec![nothing; levels.len()];
    grid.levels_of(&codes, &scales, in_features, &mut found)
        .unwrap();
    assert_eq!(found, levels);
    // The same numbers have the same bytes: nothing of what was lent is left.
    let (mut again, mut scales_again) = (vec![0; codes.len()], vec![0; scales.len()]);
    grid.encode(&out, &found, in_features, &mut again, &mut scales_again)
        .unwrap();
    assert_eq!((again, scales_again), (codes, scales));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_levels_of_any_grid(
        weight in any_matrix(),
        grid in any_grid(),
        picks in prop::collection::vec(0_usize..4, 1..9),
    ) {
        let mut picks = picks.into_iter().cycle();
        let choose = |of: &[Levels]| of[picks.next().unwrap() % of.len()];
        let (values, levels) = rounded(&weight, grid, choose);
        check_round_trip(grid, &weight, &values, &levels);
    }

    /// W~ of nearest rounding has the levels that stand first, but for MXINT blocks below 2^-94.
    #[test]
    fn nearest_of_any_grid(weight in any_matrix(), grid in any_grid()) {
        let mut weight = weight;
        for x in &mut weight.values {
            if x.abs() < 2.0_f32.powi(-90) {
                *x = 0.0;
            }
        }
        let (_, levels) = rounded(&weight, grid, |of| of[0]);
        check_round_trip(grid, &weight, &quantize(grid, &weight), &levels);
    }

    /// What MXINT packs of a weight is what the grid packs of its W~.
    #[test]
    fn mxint_packs_in_one_way(weight in any_matrix(), bits in 2_u32..=8) {
        let mut weight = weight;
        for x in &mut weight.values {
            if x.abs() < 2.0_f32.powi(-90) {
                *x = 1.0;
            }
        }
        let mxint = qera_core::quantize::Mxint::new(bits, 16).unwrap();
        let (grid, in_features) = (Grid::Mxint(mxint), weight.in_features);
        let rows = weight.values.len() / in_features;
        let (_, levels) = rounded(&weight, grid, |of| of[0]);
        let values = quantize(grid, &weight);
        let mut packed = [0; 2].map(|_: i32| vec![0; grid.codes_len(rows, in_features)]);
        let mut scales = [0; 2].map(|_: i32| vec![0; mxint.exponents_len(rows, in_features)]);
        let [own, any] = &mut packed;
        let [own_scales, any_scales] = &mut scales;
        mxint.encode(&weight.values, in_features, own, own_scales).unwrap();
        grid.encode(&values, &levels, in_features, any, any_scales).unwrap();
        prop_assert_eq!((own, own_scales), (any, any_scales));
    }
}
