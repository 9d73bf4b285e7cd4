//! Named generators: each one makes the kind of input that its name says, for `proptest`.

use core::ops::RangeInclusive;
use proptest::collection::vec;
use proptest::prelude::*;

/// Rows of one layer input with a weight for each.
#[derive(Clone, Debug)]
pub struct WeightedRows {
    /// Row-major values.
    pub values: Vec<f32>,
    /// Values of a row.
    pub in_features: usize,
    /// One weight for each row.
    pub weights: Vec<f32>,
}

/// A weight matrix.
#[derive(Clone, Debug)]
pub struct GeneratedWeight {
    /// Row-major values.
    pub values: Vec<f32>,
    /// Values of a row.
    pub in_features: usize,
}

impl WeightedRows {
    /// Returns one row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.in_features..][..self.in_features]
    }

    /// Copies the rows that `rows` lists, in that order.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            values: rows
                .iter()
                .flat_map(|&row| self.row(row))
                .copied()
                .collect(),
            in_features: self.in_features,
            weights: rows.iter().map(|&row| self.weights[row]).collect(),
        }
    }

    /// Repeats each row as often as its weight says, and drops the weights to 1.
    #[must_use]
    pub fn repeated(&self) -> Self {
        let mut values = Vec::new();
        for (row, &weight) in self.weights.iter().enumerate() {
            let mut left = weight;
            while left >= 1.0 {
                values.extend_from_slice(self.row(row));
                left -= 1.0;
            }
        }
        Self {
            weights: vec![1.0; values.len() / self.in_features],
            values,
            in_features: self.in_features,
        }
    }
}

/// Values as activations have them: most around 1, some channels hundreds of times larger, exact
/// zeros.
fn activation() -> impl Strategy<Value = f32> {
    prop_oneof![8 => -3.0_f32..3.0, 1 => -400.0_f32..400.0, 1 => Just(0.0_f32), 1 => -1.0e-6_f32..1.0e-6]
}

fn rows_of<S: Strategy<Value = f32> + Clone>(
    value: S,
    weight: impl Strategy<Value = f32> + Clone,
    in_features: RangeInclusive<usize>,
) -> impl Strategy<Value = WeightedRows> {
    (in_features, 1_usize..40).prop_flat_map(move |(in_features, rows)| {
        (
            vec(value.clone(), rows * in_features),
            vec(weight.clone(), rows),
        )
            .prop_map(move |(values, weights)| WeightedRows {
                values,
                in_features,
                weights,
            })
    })
}

/// Activation rows, each of weight 1; widths on both sides of a tile of the autocorrelation.
pub fn activation_rows() -> impl Strategy<Value = WeightedRows> {
    rows_of(activation().boxed(), Just(1.0), 1..=70)
}

/// Activation rows with weights that are counts, zeros among them.
pub fn counted_rows() -> impl Strategy<Value = WeightedRows> {
    rows_of(
        activation().boxed(),
        prop_oneof![Just(0.0_f32), Just(1.0), Just(2.0), Just(5.0)],
        1..=20,
    )
}

/// Activation rows with weights of any size from 0 to 10.
pub fn weighted_rows() -> impl Strategy<Value = WeightedRows> {
    rows_of(
        activation().boxed(),
        prop_oneof![1 => Just(0.0_f32), 4 => 0.0_f32..10.0],
        1..=20,
    )
}

/// Values around 10^9 that differ by a few multiples of 64, the spacing of f32 there: what ruins
/// `E[x^2] - E[x]^2`.
pub fn offset_rows() -> impl Strategy<Value = WeightedRows> {
    let value = (-8_i8..=8).prop_map(|steps| 1.0e9_f32 + 64.0 * f32::from(steps));
    rows_of(value.boxed(), Just(1.0), 1..=5)
}

/// Small whole numbers, whose products and sums f32 holds exactly.
pub fn integer_rows() -> impl Strategy<Value = WeightedRows> {
    rows_of((-50_i8..=50).prop_map(f32::from).boxed(), Just(1.0), 1..=70)
}

/// A partition of `rows` row numbers into batches, in shuffled order: every batch a list, some
/// possibly empty.
pub fn partition(rows: usize) -> impl Strategy<Value = Vec<Vec<usize>>> {
    let order = Just((0..rows).collect::<Vec<_>>()).prop_shuffle();
    (order, vec(0_usize..6, rows)).prop_map(|(order, batches)| {
        let mut partition = vec![Vec::new(); 6];
        for row in order {
            partition[batches[row]].push(row);
        }
        partition
    })
}

/// Any finite f32, by its bits: subnormal numbers, zeros of both signs and the largest included.
pub fn finite() -> impl Strategy<Value = f32> {
    any::<u32>()
        .prop_map(f32::from_bits)
        .prop_filter("finite", |value| value.is_finite())
}

/// A weight as a checkpoint has it: near normal, small.
pub fn checkpoint_weight() -> impl Strategy<Value = f32> {
    (vec(-1.0_f32..1.0, 4)).prop_map(|parts| parts.iter().sum::<f32>() * 0.02)
}

/// Exact multiples of 1/256 between -2 and 2: ties of every width from 2 to 8.
pub fn tie() -> impl Strategy<Value = f32> {
    (-512_i16..=512).prop_map(|steps| f32::from(steps) / 256.0)
}

/// A weight matrix of one kind of value.
pub fn matrix_of(
    value: impl Strategy<Value = f32> + Clone,
) -> impl Strategy<Value = GeneratedWeight> {
    (1_usize..4, 1_usize..80).prop_flat_map(move |(rows, in_features)| {
        vec(value.clone(), rows * in_features).prop_map(move |values| GeneratedWeight {
            values,
            in_features,
        })
    })
}
