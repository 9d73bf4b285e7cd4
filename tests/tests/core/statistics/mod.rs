//! Statistics against plain sums, in any partition, order and weighting.

mod partitions;
mod refusals;
mod streams;

use qera_core::packed::{packed_len, packed_offset};
use qera_core::rows::Rows;
use qera_core::statistics::Autocorrelation;
use qera_tests::generate::WeightedRows;

/// How far a folded statistic may be from the plain sum, relative to the largest value that the sum
/// could have.
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

/// A packed autocorrelation and the weight of its rows.
#[derive(Clone)]
struct FoldedRows {
    packed: Vec<f64>,
    weight: f64,
}

fn autocorrelation_of(input: &WeightedRows) -> FoldedRows {
    let mut packed = vec![f64::NAN; packed_len(input.in_features)];
    let mut state = Autocorrelation::new(&mut packed, input.in_features).unwrap();
    state.update(&checked(input)).unwrap();
    let weight = state.weight();
    FoldedRows { packed, weight }
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
