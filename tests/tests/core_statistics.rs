//! Statistics against plain sums, in any partition, order and weighting.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a step that fails fails the test; rows are made f32"
)]

use nalgebra::{DMatrixView, DMatrixViewMut};
use proptest::prelude::*;
use qera_core::packed::{packed_len, packed_offset};
use qera_core::rows::Rows;
use qera_core::statistics::{
    Autocorrelation, BatchMaxMeanAbs, BlockMeans, MeanAbs, Moments, SecondMoment, StatisticError,
};
use qera_tests::generate::{self, WeightedRows};

/// How far a folded statistic may be from the plain sum, relative to the largest value that the sum could have.
const TOLERANCE: f64 = 1e-12;

fn checked(input: &WeightedRows) -> Rows<'_> {
    Rows::new(&input.values, input.in_features)
        .unwrap()
        .weighted(&input.weights)
        .unwrap()
}

/// sum w term / sum w in f64, the plain way: one number a feature, or zeros without weight.
fn plain_mean(input: &WeightedRows, term: impl Fn(f32) -> f64) -> Vec<f64> {
    let total: f64 = input.weights.iter().map(|&w| f64::from(w)).sum();
    let mut sums = vec![0.0; input.in_features];
    for (row, &weight) in input.weights.iter().enumerate() {
        for (sum, &x) in sums.iter_mut().zip(input.row(row)) {
            *sum += f64::from(weight) * term(x);
        }
    }
    sums.iter()
        .map(|sum| if total > 0.0 { sum / total } else { 0.0 })
        .collect()
}

/// sum w x_i x_j / sum w of f32 products, packed.
fn plain_autocorrelation(input: &WeightedRows) -> Vec<f64> {
    let m = input.in_features;
    let total: f64 = input.weights.iter().map(|&w| f64::from(w)).sum();
    let mut packed = vec![0.0; packed_len(m)];
    for (row, &weight) in input.weights.iter().enumerate() {
        let x = input.row(row);
        for i in 0..m {
            for j in i..m {
                packed[packed_offset(m, i) + j - i] += f64::from(weight) * f64::from(x[i] * x[j]);
            }
        }
    }
    packed
        .iter()
        .map(|sum| if total > 0.0 { sum / total } else { 0.0 })
        .collect()
}

fn autocorrelation_of(input: &WeightedRows) -> (Vec<f64>, f64) {
    let mut packed = vec![f64::NAN; packed_len(input.in_features)];
    let mut state = Autocorrelation::new(&mut packed, input.in_features).unwrap();
    state.update(&checked(input)).unwrap();
    let weight = state.weight();
    (packed, weight)
}

/// Each packed value against sqrt(R_ii R_jj), the most that it could be.
fn assert_same_autocorrelation(m: usize, found: &[f64], expected: &[f64]) {
    let scale = |i: usize| expected[packed_offset(m, i)].sqrt();
    for i in 0..m {
        for j in i..m {
            let at = packed_offset(m, i) + j - i;
            let error = (found[at] - expected[at]).abs();
            assert!(
                error <= TOLERANCE * scale(i) * scale(j),
                "R[{i}, {j}]: {} is not {}",
                found[at],
                expected[at]
            );
        }
    }
}

fn assert_same(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= TOLERANCE * expected.abs(),
            "{found} is not {expected}"
        );
    }
}

fn assert_same_bits(found: &[f64], expected: &[f64]) {
    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(found), bits(expected));
}

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
        assert_same_autocorrelation(input.in_features, &autocorrelation_of(&input).0, &plain_autocorrelation(&input));
    }

    /// T8: whatever rows go to whatever worker, in whatever order, and however the workers are joined.
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
            let (other, weight) = autocorrelation_of(&part);
            autocorrelation.merge(&other, weight).unwrap();
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
        assert_same_autocorrelation(m, &autocorrelation_of(&input).0, &autocorrelation_of(&repeated).0);
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

    #[test]
    fn rows_of_weight_zero_leave_no_trace(input in generate::activation_rows()) {
        let before = autocorrelation_of(&input);
        let (mut packed, weight) = before.clone();
        let mut state = Autocorrelation::resume(&mut packed, input.in_features, weight).unwrap();
        let silent = WeightedRows { weights: vec![0.0; input.weights.len()], ..input };
        state.update(&checked(&silent)).unwrap();
        state.merge(&vec![1.0; before.0.len()], 0.0).unwrap();
        prop_assert_eq!(state.weight().to_bits(), before.1.to_bits());
        assert_same_bits(&packed, &before.0);
    }

    /// The variance of data far from zero, where E[x^2] - E[x]^2 keeps no digit: against two passes in f64.
    #[test]
    fn variance_survives_an_offset_of_1e9(input in generate::offset_rows()) {
        let (m, rows) = (input.in_features, input.weights.len() as f64);
        let (mut mean, mut m2, mut variance) = (vec![0.0; m], vec![0.0; m], vec![0.0; m]);
        let mut moments = Moments::new(&mut mean, &mut m2).unwrap();
        moments.update(&checked(&input)).unwrap();
        moments.population_variance(&mut variance).unwrap();
        let means = plain_mean(&input, f64::from);
        for (column, (&found, &mean)) in variance.iter().zip(&means).enumerate() {
            let squares = (0..input.weights.len()).map(|row| (f64::from(input.row(row)[column]) - mean).powi(2));
            let expected = squares.sum::<f64>() / rows;
            // n eps kappa, kappa <= mean / deviation: here below 40 * 2e-16 * 1e9 / 10 of the variance.
            assert!((found - expected).abs() <= 1e-6 * expected + 1e-9, "{found} is not {expected}");
        }
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
        let (mut by_rows, weight) = autocorrelation_of(&start);
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

/// Rows with weights, zeros among them, of one width.
fn wide_rows(in_features: usize, rows: usize) -> WeightedRows {
    let values = qera_tests::spectra::uniform(in_features, rows, in_features as u64);
    WeightedRows {
        values: values
            .as_slice()
            .iter()
            .map(|x| (*x * 7.0) as f32)
            .collect(),
        in_features,
        weights: (0..rows).map(|row| [1.0, 0.0, 2.5][row % 3]).collect(),
    }
}

/// The loops go by groups of features; each feature sees the plain recurrence, bit for bit, also from where it was.
#[test]
fn groups_of_features_change_no_bit() {
    for m in [1, 31, 32, 33, 100] {
        let (first, second) = (wide_rows(m, 8), wide_rows(m, 29));
        let (mut lent, mut mean, mut m2) = (vec![0.0; m], vec![0.0; m], vec![0.0; m]);
        let (mut squares, mut total) = (vec![0.0; m], 0.0);
        let mut mean_abs = MeanAbs::new(&mut lent).unwrap();
        let mut second_moment = SecondMoment::new(&mut squares).unwrap();
        let mut moments = Moments::new(&mut mean, &mut m2).unwrap();
        let mut plain = vec![[0.0_f64; 4]; m];
        for input in [&first, &second] {
            let rows = checked(input);
            mean_abs.update(&rows).unwrap();
            second_moment.update(&rows).unwrap();
            moments.update(&rows).unwrap();
            for (row, &weight) in input.weights.iter().enumerate() {
                if weight <= 0.0 {
                    continue;
                }
                let weight = f64::from(weight);
                total += weight;
                let share = weight / total;
                for (state, &x) in plain.iter_mut().zip(input.row(row)) {
                    let [magnitude, square, mean, m2] = state;
                    *magnitude += share * (f64::from(x.abs()) - *magnitude);
                    *square += share * (f64::from(x * x) - *square);
                    let deviation = f64::from(x) - *mean;
                    *mean += share * deviation;
                    *m2 += weight * deviation * (f64::from(x) - *mean);
                }
            }
        }
        let column = |c: usize| plain.iter().map(|state| state[c]).collect::<Vec<_>>();
        assert_same_bits(mean_abs.values(), &column(0));
        assert_same_bits(second_moment.values(), &column(1));
        assert_same_bits(moments.mean(), &column(2));
        assert_same_bits(moments.m2(), &column(3));
        let totals = [mean_abs.weight(), second_moment.weight(), moments.weight()];
        assert_same_bits(&totals, &[total; 3]);
    }
}

/// A million rows in single folds: the bound of the recurrence holds where errors could pile up.
#[test]
fn a_long_stream_stays_within_the_tolerance() {
    let mut state = 1_u32;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 + 0.5
    };
    let (mut packed, mut lent) = ([0.0; 3], [0.0; 2]);
    let mut autocorrelation = Autocorrelation::new(&mut packed, 2).unwrap();
    let mut second_moment = SecondMoment::new(&mut lent).unwrap();
    // Kahan's sums, so that the reference is better than what it judges.
    let (mut sums, mut lost) = ([0.0_f64; 3], [0.0_f64; 3]);
    for _ in 0..1_000_000 {
        let row = [draw(), draw()];
        let rows = Rows::new(&row, 2).unwrap();
        autocorrelation.update(&rows).unwrap();
        second_moment.update(&rows).unwrap();
        for (at, product) in [row[0] * row[0], row[0] * row[1], row[1] * row[1]]
            .into_iter()
            .enumerate()
        {
            let term = f64::from(product) - lost[at];
            let sum = sums[at] + term;
            lost[at] = (sum - sums[at]) - term;
            sums[at] = sum;
        }
    }
    let expected = sums.map(|sum| sum / 1.0e6);
    assert_same(autocorrelation.packed(), &expected);
    assert_same(second_moment.values(), &[expected[0], expected[2]]);
}

/// The autocorrelation and the two scales of the reference's toy problem, five rows of four features.
#[test]
fn golden_rows() {
    let x = [
        1.0, 2.0, 0.0, -1.0, 0.5, -1.0, 3.0, 0.0, 2.0, 0.0, 1.0, 1.0, -1.0, 1.0, 0.5, 4.0, 0.0,
        -2.0, 1.0, 0.5,
    ];
    let mut packed = [0.0; 10];
    let mut autocorrelation = Autocorrelation::new(&mut packed, 4).unwrap();
    autocorrelation.update(&Rows::new(&x, 4).unwrap()).unwrap();
    assert_same(
        &packed,
        &[1.25, 0.1, 0.6, -0.6, 2.0, -0.9, 0.2, 2.25, 0.7, 3.65],
    );
    let scale = |batches: &[&[f32]]| {
        let (mut lent, mut scratch, mut scale) = ([0.0; 4], [0.0; 4], [0.0; 4]);
        let mut statistic = BatchMaxMeanAbs::new(&mut lent).unwrap();
        for batch in batches {
            statistic
                .update_batch(&Rows::new(batch, 4).unwrap(), &mut scratch)
                .unwrap();
        }
        statistic.finish_scale(&mut scale).unwrap();
        scale
    };
    let close = |found: [f64; 4], printed: [f64; 4]| {
        found.iter().zip(printed).all(|(f, p)| (f - p).abs() < 6e-8)
    };
    assert!(close(
        scale(&[&x[..8], &x[8..]]),
        [0.738_548_9, 1.107_823_4, 1.107_823_4, 1.354_006_4]
    ));
    assert!(close(
        scale(&[&x]),
        [0.832_050_3, 1.109_400_4, 1.016_950_4, 1.201_850_4]
    ));
    assert!(
        close(scale(&[]), [1.0; 4]),
        "without a batch every channel counts the same"
    );
}

/// Merging maxima is exact and blind to order; a dead channel is clamped before the normalisation.
#[test]
fn batch_maxima_merge_exactly() {
    let (mut first, mut second, mut scratch, mut scale) = ([0.0; 2], [0.0; 2], [0.0; 2], [0.0; 2]);
    let mut a = BatchMaxMeanAbs::new(&mut first).unwrap();
    a.update_batch(&Rows::new(&[0.0, 3.0], 2).unwrap(), &mut scratch)
        .unwrap();
    let mut b = BatchMaxMeanAbs::new(&mut second).unwrap();
    b.update_batch(&Rows::new(&[0.0, -4.0, 0.0, 6.0], 2).unwrap(), &mut scratch)
        .unwrap();
    a.merge(&b).unwrap();
    assert_same_bits(a.values(), &[0.0, 5.0]);
    assert_same(&[a.weight()], &[3.0]);
    a.finish_scale(&mut scale).unwrap();
    let middle = (1e-4_f64 * 5.0).sqrt();
    assert_same(&scale, &[1e-4 / middle, 5.0 / middle]);
}

/// Exactly the memory that is needed is lent; one number less or more is refused.
#[test]
fn states_refuse_memory_of_another_length() {
    let mut memory = [0.0; 8];
    let length = |needed, lent| Err(StatisticError::Length { needed, lent });
    assert!(Autocorrelation::new(&mut memory[..6], 3).is_ok());
    assert_eq!(
        Autocorrelation::new(&mut memory[..5], 3).map(|_| ()),
        length(6, 5)
    );
    assert_eq!(
        Autocorrelation::new(&mut memory[..7], 3).map(|_| ()),
        length(6, 7)
    );
    assert_eq!(Autocorrelation::new(&mut [], 0).map(|_| ()), length(1, 0));
    assert_eq!(SecondMoment::new(&mut []).map(|_| ()), length(1, 0));
    let (first, second) = memory.split_at_mut(3);
    assert_eq!(
        Moments::new(first, &mut second[..2]).map(|_| ()),
        length(3, 2)
    );
}

/// T11: whatever is refused leaves the state as it was, bit for bit.
#[test]
fn what_is_refused_changes_nothing() {
    let (mut packed, mut mean, mut m2) = ([2.0, 1.0, 3.0], [1.0, 2.0], [3.0, 4.0]);
    let mut autocorrelation = Autocorrelation::resume(&mut packed, 2, 7.0).unwrap();
    let mut moments = Moments::resume(&mut mean, &mut m2, 7.0).unwrap();
    let other_width = Rows::new(&[1.0, 2.0, 3.0], 3).unwrap();
    let refused = Err(StatisticError::InFeatures {
        expected: 2,
        found: 3,
    });
    assert_eq!(autocorrelation.update(&other_width), refused);
    assert_eq!(moments.update(&other_width), refused);
    let sums = [1.0, 2.0, 0.0, f32::INFINITY];
    let fold = autocorrelation.fold_block(DMatrixView::from_slice(&sums, 2, 2), 1.0);
    assert_eq!(
        fold,
        Err(StatisticError::Sum {
            row: 1,
            column: 1,
            value: f32::INFINITY
        })
    );
    let fold = autocorrelation.fold_block(DMatrixView::from_slice(&sums[..2], 2, 1), 1.0);
    assert_eq!(
        fold,
        Err(StatisticError::InFeatures {
            expected: 2,
            found: 1
        })
    );
    let fold = autocorrelation.fold_block(DMatrixView::from_slice(&sums, 2, 2), -1.0);
    assert_eq!(fold, Err(StatisticError::Weight { value: -1.0 }));
    assert_eq!(
        autocorrelation.merge(&[1.0, 1.0], 1.0),
        Err(StatisticError::Length { needed: 3, lent: 2 })
    );
    assert_eq!(
        autocorrelation.merge(&[1.0, 1.0, -1.0], 1.0),
        Err(StatisticError::Value {
            index: 2,
            value: -1.0
        })
    );
    assert!(autocorrelation.merge(&[1.0, f64::NAN, 1.0], 1.0).is_err());
    assert!(
        autocorrelation
            .merge(&[1.0, 1.0, 1.0], f64::INFINITY)
            .is_err()
    );
    assert_same_bits(&[autocorrelation.weight(), moments.weight()], &[7.0, 7.0]);
    assert_same_bits(autocorrelation.packed(), &[2.0, 1.0, 3.0]);
    assert_same_bits(moments.mean(), &[1.0, 2.0]);
    assert_same_bits(moments.m2(), &[3.0, 4.0]);
}

/// A snapshot that no stream can have written is refused, not continued.
#[test]
fn impossible_saved_values_are_refused() {
    let value = |index, value| Err(StatisticError::Value { index, value });
    assert_eq!(
        Autocorrelation::resume(&mut [1.0, 0.0, -1.0], 2, 1.0).map(|_| ()),
        value(2, -1.0)
    );
    assert_eq!(
        SecondMoment::resume(&mut [1.0, f64::INFINITY], 1.0).map(|_| ()),
        value(1, f64::INFINITY)
    );
    assert_eq!(
        MeanAbs::resume(&mut [-2.0], 1.0).map(|_| ()),
        value(0, -2.0)
    );
    assert_eq!(
        BatchMaxMeanAbs::resume(&mut [-2.0], 1.0).map(|_| ()),
        value(0, -2.0)
    );
    assert_eq!(
        Moments::resume(&mut [-2.0], &mut [-3.0], 1.0).map(|_| ()),
        value(0, -3.0)
    );
    assert!(SecondMoment::resume(&mut [1.0], f64::NAN).is_err());
    assert_eq!(
        BlockMeans::resume(1, 2.0, 0.5),
        None,
        "one block has no spread"
    );
    assert_eq!(
        BlockMeans::resume(0, 2.0, 0.0),
        None,
        "no block has no mean"
    );
    assert!(BlockMeans::resume(3, 2.0, 0.5).is_some());
}

#[test]
fn dead_channels_are_counted_and_the_first_are_named() {
    let mut values = [0.0; 12];
    values[3] = 1.0;
    let second_moment = SecondMoment::resume(&mut values, 5.0).unwrap();
    let dead = second_moment.dead_channels();
    assert_eq!((dead.count, dead.first.len()), (11, 8));
    assert_eq!(
        dead.to_string(),
        "11 of 12 channels are always zero: 0, 1, 2, 4, 5, 6, 7, 8, ..."
    );
}
