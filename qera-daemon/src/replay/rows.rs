//! The rows of a layer input, some at a time, from one shard after the other.

use core::ops::Range;

use faer::Mat;

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::stored::StoredRows;
use crate::replay::recorded::Recorded;
use crate::source::reading::read_site;
use crate::source::refusal::Refusal;

/// Rows that are multiplied at a time, ...
const ROWS: usize = 192;
/// ... unless their outputs would be more numbers than this.
const OUTPUTS: usize = 1 << 23;

/// The rows of a site that are replayed.
#[derive(Debug)]
pub(crate) struct SiteRows<'a> {
    recorded: &'a Recorded,
    site: usize,
    spaced: EvenlySpaced,
}

/// `taken` of `all` rows, evenly spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EvenlySpaced {
    all: usize,
    taken: usize,
}

impl EvenlySpaced {
    /// The chosen rows within this part of the rows, counted from the part's beginning.
    fn within(self, part: Range<usize>) -> impl Iterator<Item = usize> {
        let Self { all, taken } = self;
        // Counts of rows are far below 2^64, so that products of two are below 2^128.
        let [all, taken] = [all as u128, taken as u128];
        let first = (part.start as u128 * taken).div_ceil(all.max(1));
        let last = (part.end as u128 * taken).div_ceil(all.max(1));
        let place = move |i: u128| usize::try_from(i * all / taken.max(1)).unwrap_or(usize::MAX);
        (first..last).map(move |i| place(i) - part.start)
    }
}

/// A sum over rows by their weights.
#[derive(Debug, Clone, Copy, Default)]
struct WeightedSum {
    sum: f64,
    weight: f64,
}

impl<'a> SiteRows<'a> {
    /// The rows of a site, at most `most` of them.
    pub(crate) fn new(recorded: &'a Recorded, site: usize, most: Option<usize>) -> Self {
        let all = recorded.rows_of(site);
        let taken = most.unwrap_or(all).min(all);
        Self {
            recorded,
            site,
            spaced: EvenlySpaced { all, taken },
        }
    }

    /// The number of rows.
    #[must_use]
    pub(crate) const fn count(&self) -> usize {
        self.spaced.taken
    }

    /// Whether these are all rows in the shards.
    #[must_use]
    pub(crate) const fn are_all(&self) -> bool {
        self.spaced.taken == self.spaced.all
    }

    /// The means of |x M|^2 over the rows, by their weights, for several M, each given by columns.
    /// The rows are read once for all of them.
    ///
    /// # Errors
    /// [`Refusal`] for a shard whose file was replaced.
    pub(crate) fn mean_powers<const N: usize>(
        &self,
        compute: Compute<'_>,
        matrices: [ColumnMajor<'_>; N],
    ) -> Result<[f64; N], Refusal> {
        let mut totals = [WeightedSum::default(); N];
        let mut before = 0;
        for shard in &self.recorded.shards {
            let rows = shard.rows.get(&self.site).copied().unwrap_or_default();
            let chosen: Vec<usize> = self.spaced.within(before..before + rows).collect();
            before += rows;
            if chosen.is_empty() {
                continue;
            }
            if let Some(batch) = read_site(&shard.admitted, self.site)? {
                for (total, matrix) in totals.iter_mut().zip(matrices) {
                    total.add(compute, matrix, batch.stored(), &chosen);
                }
            }
        }
        Ok(totals.map(|total| total.sum / total.weight))
    }
}

impl WeightedSum {
    /// Adds |x M|^2 of some of the rows.
    fn add(
        &mut self,
        compute: Compute<'_>,
        matrix: ColumnMajor<'_>,
        rows: StoredRows<'_>,
        chosen: &[usize],
    ) {
        let m = matrix.rows;
        let operand = compute.operand(matrix);
        let at_once = (OUTPUTS / matrix.columns().max(1)).clamp(1, ROWS);
        let mut wide = vec![0.0; at_once.min(chosen.len()) * m];
        for piece in chosen.chunks(at_once) {
            let values = &mut wide[..piece.len() * m];
            for (row, of_row) in piece.iter().zip(values.chunks_exact_mut(m)) {
                rows.widen(row * m..(row + 1) * m, of_row);
            }
            let values = &*values;
            let x = Mat::from_fn(piece.len(), m, |i, j| f64::from(values[i * m + j]));
            let images = operand.times(x.as_ref());
            let weights: Vec<f64> = piece.iter().map(|&row| rows.weight_of(row)).collect();
            for column in images.col_iter() {
                let numbers = column.iter().zip(&weights);
                self.sum += numbers.map(|(y, w)| w * y * y).sum::<f64>();
            }
            self.weight += weights.iter().sum::<f64>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_evenly_spaced_over_parts_of_any_length() {
        for (all, taken) in [(10, 10), (10, 3), (97, 13), (5, 1), (1000, 999)] {
            let spaced = EvenlySpaced { all, taken };
            let whole: Vec<usize> = spaced.within(0..all).collect();
            assert_eq!(whole.len(), taken);
            let steps = whole.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(steps.clone().all(|step| step >= all / taken), "{whole:?}");
            assert!(steps.clone().all(|step| step <= all.div_ceil(taken)));
            for cut in 1..all {
                let (mut before, mut found) = (0, Vec::new());
                while before < all {
                    let end = (before + cut).min(all);
                    found.extend(spaced.within(before..end).map(|row| before + row));
                    before = end;
                }
                assert_eq!(found, whole, "{all} {taken} {cut}");
            }
        }
    }
}
