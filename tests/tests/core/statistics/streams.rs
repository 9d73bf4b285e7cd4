//! Long streams, data far from zero, groups of features, and the rows of the reference.

use proptest::prelude::*;
use qera_core::pseudo_random::SplitMix64;
use qera_core::rows::Rows;
use qera_core::statistics::{Autocorrelation, BatchMaxMeanAbs, MeanAbs, Moments, SecondMoment};
use qera_tests::generate::{self, WeightedRows};
use qera_tests::spectra::uniform;

use super::{assert_same, assert_same_bits, checked, plain_mean};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The variance of data far from zero, where E[x^2] - E[x]^2 keeps no digit: against two passes
    /// in f64.
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
            // n eps kappa, kappa <= mean / deviation: here below 40 * 2e-16 * 1e9 / 10 of the
            // variance.
            assert!((found - expected).abs() <= 1e-6 * expected + 1e-9, "{found} is not {expected}");
        }
    }
}

/// Rows with weights, zeros among them, of one width.
fn wide_rows(in_features: usize, rows: usize) -> WeightedRows {
    let values = uniform(in_features, rows, in_features as u64);
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

/// The loops go by groups of features; each feature sees the plain recurrence, bit for bit, also
/// from where it was.
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
    let mut sequence = SplitMix64::new(1);
    let mut draw = || (sequence.next_bits() >> 40) as f32 / 16_777_216.0 + 0.5;
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

/// The autocorrelation and the two scales of the reference's toy problem, five rows of four
/// features.
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
