//! Weights of rows: a row of weight 3 counts like three rows, one of weight 0 is no row.
//!
//! With w the weights of the rows of a site, and every sum over rows whose weight is above 0:
//!
//! - R = sum w x^T x / sum w; the mean, the deviations M2 = sum w (x - mean)^2, and E|x| = sum w
//!   |x| / sum w the same; a batch's mean of |x| is over the weights of the batch (the reference's
//!   maximum is over these means).
//! - The error of a block that judges (of the window, of the rows aside) is the mean over its rows
//!   by weight. Blocks count alike, whatever they weigh, as they do whatever their length: an
//!   interval is over blocks. f that is measured on rows is the mean over all of them by weight.
//! - Counts of rows (solve points, what is starved, the manifest) are counts: weights change none.
//! - Where it matters how much is known, N is the effective number of rows, (sum w)^2 / sum w^2
//!   (Kish, Survey Sampling, 8.2): a mean whose weights differ varies like one of so many rows. It
//!   decides a = m / (m + N), the rule for a W~, and which channels hardly vary. It is the number
//!   of rows where all weigh the same, so that a factor common to all weights changes nothing.
//!
//! X^T W X is formed as the product of the rows times sqrt(w) with themselves: one panel of packed
//! rows serves as both factors as it does without weights, and what comes out is X'^T X' of rows
//! that exist, so that R stays positive semidefinite to the same rounding. w x times x has one
//! rounding less, but its two factors differ by the size of w: what overflows, and what is lost
//! below the smallest number, would then depend on the weights. sqrt(w) is off by 2^-25 of itself,
//! alike in all channels of a row, which is a weight that is off by 2^-24; a scaled number by
//! 2^-24, as a product is. Weights are taken in units of a power of 4 that none of them exceeds:
//! sqrt(w) is at most 1 and no product grows, whatever the weights; a power of 4 common to all
//! weights changes no bit.

use core::ops::Range;

use crate::host::rounding::narrow;

/// A weight for each of some rows, every one finite and above 0.
#[derive(Debug, Clone, PartialEq)]
pub struct RowWeights {
    values: Vec<f32>,
    unit: f64,
}

impl RowWeights {
    /// Weights that were checked.
    #[must_use]
    pub fn new(values: Vec<f32>) -> Self {
        let largest = values.iter().fold(0.0_f32, |max, w| max.max(*w));
        Self {
            unit: unit_of(largest),
            values,
        }
    }

    /// The weights, lent to a part of the rows.
    pub(crate) fn lend(&self) -> LentWeights<'_> {
        LentWeights {
            values: &self.values,
            unit: self.unit,
        }
    }
}

/// The smallest power of 4 above a weight; 1 for none.
fn unit_of(largest: f32) -> f64 {
    const FRACTION_BITS: u32 = 52;
    if largest <= 0.0 {
        return 1.0;
    }
    // Every f32 is a normal f64 number: 2^e <= largest < 2^(e + 1).
    let biased = f64::from(largest).to_bits() >> FRACTION_BITS;
    // The bias is odd: an even exponent is an odd biased one.
    let above = biased + 1 + biased % 2;
    f64::from_bits(above << FRACTION_BITS)
}

/// Weights of some rows, lent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LentWeights<'a> {
    values: &'a [f32],
    unit: f64,
}

impl<'a> LentWeights<'a> {
    /// The weights of some of the rows.
    pub(crate) fn slice(&self, rows: Range<usize>) -> Self {
        Self {
            values: &self.values[rows],
            unit: self.unit,
        }
    }

    /// The weights as numbers.
    pub(crate) const fn values(&self) -> &'a [f32] {
        self.values
    }

    /// A power of 4 above all weights.
    pub(crate) const fn unit(&self) -> f64 {
        self.unit
    }

    /// sqrt(w / unit) of a row.
    pub(crate) fn root(&self, row: usize) -> f32 {
        narrow((f64::from(self.values[row]) / self.unit).sqrt())
    }

    /// w / unit of each row.
    pub(crate) fn in_units(&self) -> Vec<f32> {
        let weights = self.values.iter();
        weights.map(|w| narrow(f64::from(*w) / self.unit)).collect()
    }

    /// The sum of the weights.
    pub(crate) fn sum(&self) -> f64 {
        self.values.iter().map(|w| f64::from(*w)).sum()
    }

    /// The sum of their squares.
    pub(crate) fn squares(&self) -> f64 {
        self.values.iter().map(|w| f64::from(*w).powi(2)).sum()
    }
}

/// How much a mean is taken over: a number of rows, and their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Extent {
    /// Rows.
    pub(crate) rows: u64,
    /// Sum of their weights.
    pub(crate) weight: f64,
    /// Sum of the squares of their weights; `None` where all are 1.
    pub(crate) squares: Option<f64>,
}

impl Extent {
    /// The extent of this many rows, each of weight 1.
    pub(crate) const fn rows(rows: u64) -> Self {
        Self {
            rows,
            weight: rows as f64,
            squares: None,
        }
    }

    /// The sum of the squares of the weights.
    fn sum_of_squares(&self) -> f64 {
        self.squares.unwrap_or(self.rows as f64)
    }

    /// The extent together with other rows.
    #[must_use]
    pub(crate) fn with(&self, other: &Self) -> Self {
        let weighted = self.squares.is_some() || other.squares.is_some();
        Self {
            rows: self.rows + other.rows,
            weight: self.weight + other.weight,
            squares: weighted.then(|| self.sum_of_squares() + other.sum_of_squares()),
        }
    }

    /// The extent without some of its rows.
    #[must_use]
    pub(crate) fn without(&self, part: &Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(part.rows),
            weight: self.weight - part.weight,
            squares: self.squares.map(|sum| sum - part.sum_of_squares()),
        }
    }

    /// The number of rows of equal weight whose mean varies as much: (sum w)^2 / sum w^2.
    pub(crate) fn effective_rows(&self) -> f64 {
        let rows = self.rows as f64;
        match self.squares {
            Some(squares) if squares > 0.0 => {
                // Rounding may leave these bounds.
                (self.weight * self.weight / squares).clamp(1.0, rows.max(1.0))
            }
            _ => rows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_a_power_of_four_above_every_weight() {
        let smallest = f32::from_bits(1);
        for largest in [
            1.0_f32,
            0.9,
            0.25,
            0.249,
            3.9,
            4.0,
            1e-30,
            smallest,
            f32::MAX,
        ] {
            let unit = unit_of(largest);
            assert!(unit > f64::from(largest) && unit <= 4.0 * f64::from(largest));
            let exponent = unit.log2();
            assert!(
                (exponent - 2.0 * (exponent / 2.0).round()).abs() < 1e-12,
                "{unit}"
            );
        }
        assert!((unit_of(0.0) - 1.0).abs() < 1e-300);
        let weights = RowWeights::new(vec![3.0, 0.75]);
        let lent = weights.lend();
        assert!((lent.unit() - 4.0).abs() < 1e-300);
        assert!((f64::from(lent.root(1)) - 0.1875_f64.sqrt()).abs() < 1e-8);
    }

    #[test]
    fn effective_rows_are_rows_where_all_weigh_the_same() {
        let of = |weights: &[f32]| {
            let lent = RowWeights::new(weights.to_vec());
            Extent {
                rows: weights.len() as u64,
                weight: lent.lend().sum(),
                squares: Some(lent.lend().squares()),
            }
        };
        assert!((of(&[0.5; 7]).effective_rows() - 7.0).abs() < 1e-12);
        // (3 + 1)^2 / (9 + 1)
        let uneven = of(&[3.0, 1.0]);
        assert!((uneven.effective_rows() - 1.6).abs() < 1e-12);
        let both = uneven.with(&Extent::rows(4));
        assert!((both.effective_rows() - 64.0 / 14.0).abs() < 1e-12);
        assert_eq!(both.without(&uneven).rows, 4);
        assert!((both.without(&uneven).effective_rows() - 4.0).abs() < 1e-12);
        assert!((of(&[1e-20, 1e20]).effective_rows() - 1.0).abs() < 1e-12);
        assert!(Extent::rows(0).effective_rows().abs() < 1e-300);
    }
}
