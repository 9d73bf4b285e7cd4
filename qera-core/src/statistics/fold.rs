//! The recurrence of [the module](super): how rows, and other means, move running means.

use crate::rows::Rows;

/// How many channels are folded together, so that their running values stay in registers or the
/// first-level cache.
pub(super) const CHANNELS: usize = 32;

/// A row whose weight is not 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) values: &'a [f32],
    pub(super) weight: f64,
    /// The row's share of the total weight including it: how far it moves a mean.
    pub(super) share: f64,
}

/// Goes through the rows whose weight is not 0. `total` is the weight before them and grows by
/// each.
#[inline]
pub(super) fn steps<'a>(rows: &Rows<'a>, total: &mut f64) -> impl Iterator<Item = Step<'a>> {
    rows.iter().filter(|row| row.weight > 0.0).map(move |row| {
        let weight = f64::from(row.weight);
        *total += weight;
        Step {
            values: row.values,
            weight,
            share: weight / *total,
        }
    })
}

/// Folds each row's image under `term` into the running means, row by row, and returns the new
/// total weight.
#[inline]
pub(super) fn fold_rows(
    means: &mut [f64],
    weight: f64,
    rows: &Rows<'_>,
    term: impl Fn(f32) -> f32,
) -> f64 {
    let mut total = weight;
    for (group, means) in means.chunks_mut(CHANNELS).enumerate() {
        total = weight;
        for step in steps(rows, &mut total) {
            for (mean, &x) in means.iter_mut().zip(&step.values[group * CHANNELS..]) {
                *mean += step.share * (f64::from(term(x)) - *mean);
            }
        }
    }
    total
}

/// Folds other means of weight `other_weight` into running means of `weight`, and returns the new
/// total weight.
pub(super) fn fold_means(means: &mut [f64], weight: f64, others: &[f64], other_weight: f64) -> f64 {
    let total = weight + other_weight;
    if other_weight > 0.0 {
        let share = other_weight / total;
        for (mean, &other) in means.iter_mut().zip(others) {
            *mean += share * (other - *mean);
        }
    }
    total
}
