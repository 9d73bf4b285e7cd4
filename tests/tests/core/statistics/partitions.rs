//! Rows in any split, order and weighting.

use nalgebra::{DMatrixView, DMatrixViewMut};
use proptest::prelude::*;
use qera_core::packed::packed_len;
use qera_core::statistics::{Autocorrelation, BatchMaxMeanAbs, MeanAbs, Moments, SecondMoment};
use qera_tests::generate::{self, WeightedRows};

use super::{
    FoldedRows, TOLERANCE, assert_same, assert_same_autocorrelation, assert_same_bits,
    autocorrelation_of, checked, plain_autocorrelation, plain_mean,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn means_equal_the_plain_sum(input in prop_oneof![generate::activation_rows(), generate::weighted_rows()]) {
        let rows = checked(&input);
        let mut lent = vec![f64::NAN; input.in_features];
        let mut second_moment = SecondMoment::new(&mut lent).unwrap();
        second_moment.update(&rows).unwrap();
        assert_same(second_moment.values(), &plain_mean(&input, |x| f64::from(x * x)));
        let mut lent = vec![f64::NAN; input.in_features];
        let mut mean_abs = MeanAbs::new(&mut lent).unwrap();
        mean_abs.update(&rows).unwrap();
        assert_same(mean_abs.values(), &plain_mean(&input, |x| f64::from(x.abs())));
        assert!((mean_abs.weight() - rows.weight()).abs() <= TOLERANCE * rows.weight());
        let (found, expected) = (autocorrelation_of(&input), plain_autocorrelation(&input));
        assert_same_autocorrelation(input.in_features, &found.packed, &expected);
    }

    /// T8: whatever rows go to whatever worker, in whatever order, and however the workers are
    /// joined.
    #[test]
    fn any_split_and_permutation_merge_to_the_same(
        (input, partition) in prop_oneof![generate::activation_rows(), generate::weighted_rows()]
            .prop_flat_map(|input| { let rows = input.weights.len(); (Just(input), generate::partition(rows)) }),
    ) {
        let m = input.in_features;
        let mut packed = vec![0.0; packed_len(m)];
        let mut autocorrelation = Autocorrelation::new(&mut packed, m).unwrap();
        let (mut lent, mut mean, mut m2) = (vec![0.0; m], vec![0.0; m], vec![0.0; m]);
        let mut mean_abs = MeanAbs::new(&mut lent).unwrap();
        let mut moments = Moments::new(&mut mean, &mut m2).unwrap();
        for part in &partition {
            let part = input.select(part);
            let other = autocorrelation_of(&part);
            autocorrelation.merge(&other.packed, other.weight).unwrap();
            let (mut lent, mut mean, mut m2) = (vec![0.0; m], vec![0.0; m], vec![0.0; m]);
            let mut other = MeanAbs::new(&mut lent).unwrap();
            other.update(&checked(&part)).unwrap();
            mean_abs.merge(&other).unwrap();
            let mut other = Moments::new(&mut mean, &mut m2).unwrap();
            other.update(&checked(&part)).unwrap();
            moments.merge(&other).unwrap();
        }
        let weight = checked(&input).weight();
        for found in [autocorrelation.weight(), mean_abs.weight(), moments.weight()] {
            assert!((found - weight).abs() <= TOLERANCE * weight);
        }
        assert_same_autocorrelation(m, autocorrelation.packed(), &plain_autocorrelation(&input));
        assert_same(mean_abs.values(), &plain_mean(&input, |x| f64::from(x.abs())));
        let means = plain_mean(&input, f64::from);
        let sizes = plain_mean(&input, |x| f64::from(x.abs()));
        let (mut whole_mean, mut whole_m2) = (vec![0.0; m], vec![0.0; m]);
        let mut whole = Moments::new(&mut whole_mean, &mut whole_m2).unwrap();
        whole.update(&checked(&input)).unwrap();
        let squares = plain_mean(&input, |x| f64::from(x * x));
        for ((found, expected), size) in moments.m2().iter().zip(whole.m2()).zip(squares) {
            assert!((found - expected).abs() <= TOLERANCE * size * weight);
        }
        for ((found, expected), size) in moments.mean().iter().zip(&means).zip(&sizes) {
            assert!((found - expected).abs() <= TOLERANCE * size);
        }
    }

    /// T10: weight 0 is the same as a row that is absent, a whole number the same as repetition.
    #[test]
    fn a_whole_weight_repeats_the_row(input in generate::counted_rows()) {
        let repeated = input.repeated();
        let m = input.in_features;
        let (found, expected) = (autocorrelation_of(&input), autocorrelation_of(&repeated));
        assert_same_autocorrelation(m, &found.packed, &expected.packed);
        let variance = |input: &WeightedRows| {
            let (mut mean, mut m2, mut out) = (vec![0.0; m], vec![0.0; m], vec![0.0; m]);
            let mut moments = Moments::new(&mut mean, &mut m2).unwrap();
            moments.update(&checked(input)).unwrap();
            moments.sample_variance(&mut out).unwrap();
            (out, plain_mean(input, |x| f64::from(x * x)))
        };
        let ((found, _), (expected, scale)) = (variance(&input), variance(&repeated));
        for ((found, expected), scale) in found.iter().zip(&expected).zip(scale) {
            assert!((found - expected).abs() <= TOLERANCE * scale);
        }
        let batch_max = |input: &WeightedRows| {
            let (mut lent, mut scratch) = (vec![0.0; m], vec![0.0; m]);
            let mut statistic = BatchMaxMeanAbs::new(&mut lent).unwrap();
            statistic.update_batch(&checked(input), &mut scratch).unwrap();
            lent
        };
        assert_same(&batch_max(&input), &batch_max(&repeated));
    }

    /// Only how weights compare counts: a power of 4 common to all changes no bit of a mean.
    #[test]
    fn a_factor_common_to_all_weights_changes_no_mean(input in generate::weighted_rows(), factor in 0.01_f32..100.0) {
        let m = input.in_features;
        let scaled = |factor: f32| {
            let weights = input.weights.iter().map(|w| w * factor).collect();
            WeightedRows { weights, ..input.clone() }
        };
        let of = |input: &WeightedRows| {
            let (mut mean, mut m2, mut variance) = (vec![0.0; m], vec![0.0; m], vec![0.0; m]);
            let mut moments = Moments::new(&mut mean, &mut m2).unwrap();
            moments.update(&checked(input)).unwrap();
            moments.population_variance(&mut variance).unwrap();
            let (mut abs, mut largest, mut scratch) = (vec![0.0; m], vec![0.0; m], vec![0.0; m]);
            MeanAbs::new(&mut abs).unwrap().update(&checked(input)).unwrap();
            let mut statistic = BatchMaxMeanAbs::new(&mut largest).unwrap();
            statistic.update_batch(&checked(input), &mut scratch).unwrap();
            [autocorrelation_of(input).packed, mean, variance, abs, largest]
        };
        let found = of(&input);
        for (found, same) in found.iter().zip(&of(&scaled(4.0))) {
            assert_same_bits(found, same);
        }
        assert_same_autocorrelation(m, &of(&scaled(factor))[0], &plain_autocorrelation(&scaled(factor)));
    }

    #[test]
    fn rows_of_weight_zero_leave_no_trace(input in generate::activation_rows()) {
        let before = autocorrelation_of(&input);
        let FoldedRows { mut packed, weight } = before.clone();
        let mut state = Autocorrelation::resume(&mut packed, input.in_features, weight).unwrap();
        let silent = WeightedRows { weights: vec![0.0; input.weights.len()], ..input };
        state.update(&checked(&silent)).unwrap();
        state.merge(&vec![1.0; before.packed.len()], 0.0).unwrap();
        prop_assert_eq!(state.weight().to_bits(), before.weight.to_bits());
        assert_same_bits(&packed, &before.packed);
    }

    /// A block's own sums, exact in f32, give what its rows give.
    #[test]
    fn a_block_folds_like_its_rows(input in generate::integer_rows(), before in generate::integer_rows()) {
        let m = input.in_features;
        // Column-major; only the lower triangle may be read.
        let mut sums = vec![f32::NAN; m * m];
        for j in 0..m {
            for i in j..m {
                sums[i + j * m] = (0..input.weights.len()).map(|row| input.row(row)[i] * input.row(row)[j]).sum();
            }
        }
        let start = WeightedRows { values: before.values[..before.values.len() / m * m].to_vec(), in_features: m,
            weights: vec![1.0; before.values.len() / m] };
        let FoldedRows { packed: mut by_rows, weight } = autocorrelation_of(&start);
        let mut by_block = by_rows.clone();
        Autocorrelation::resume(&mut by_rows, m, weight).unwrap().update(&checked(&input)).unwrap();
        let mut state = Autocorrelation::resume(&mut by_block, m, weight).unwrap();
        state.fold_block(DMatrixView::from_slice(&sums, m, m), input.weights.len() as f64).unwrap();
        assert_same_autocorrelation(m, &by_block, &by_rows);
        // Every way of reading R agrees.
        let state = Autocorrelation::resume(&mut by_block, m, weight).unwrap();
        let (mut full, mut diagonal) = (vec![0.0; m * m], vec![0.0; m]);
        state.write_full(DMatrixViewMut::from_slice(&mut full, m, m)).unwrap();
        state.diagonal(&mut diagonal).unwrap();
        for i in 0..m {
            for j in 0..m {
                prop_assert_eq!(state.get(i, j), Some(full[i + j * m]));
            }
            prop_assert_eq!(state.get(i, i), Some(diagonal[i]));
        }
        prop_assert_eq!(state.get(0, m), None);
    }

    /// Stopping and continuing from saved values changes no bit.
    #[test]
    fn resuming_changes_no_bit(input in generate::weighted_rows(), cut in 0_usize..40) {
        let (m, rows) = (input.in_features, input.weights.len());
        let cut = cut.min(rows);
        let (first, second) = (input.select(&(0..cut).collect::<Vec<_>>()), input.select(&(cut..rows).collect::<Vec<_>>()));
        let (mut mean, mut m2) = (vec![0.0; m], vec![0.0; m]);
        let mut moments = Moments::new(&mut mean, &mut m2).unwrap();
        moments.update(&checked(&first)).unwrap();
        let (weight, mut saved_mean, mut saved_m2) = (moments.weight(), moments.mean().to_vec(), moments.m2().to_vec());
        moments.update(&checked(&second)).unwrap();
        let mut resumed = Moments::resume(&mut saved_mean, &mut saved_m2, weight).unwrap();
        resumed.update(&checked(&second)).unwrap();
        assert_same_bits(resumed.mean(), moments.mean());
        assert_same_bits(resumed.m2(), moments.m2());
    }
}
