//! Folds of the window, and what each is solved from: the site's statistics without the fold's rows.

use qera_core::reconstruct::Method;

use crate::calibrate::{Block, SiteStatistics, subtract_products};

use super::metric::{Metric, diagonal_scale};
use super::packed_r::{mirror_lower, narrow};

/// Folds when the window is a large part of the rows.
const FOLDS: u64 = 4;

/// The window's blocks: one fold when they are at most a quarter of the rows, else four of nearly equal rows.
/// Every fold leaves rows to solve from.
pub(super) fn folds(statistics: &SiteStatistics) -> Vec<&[Block]> {
    let blocks = statistics.window.blocks();
    let rows = statistics.window.rows() as u64;
    let count = if 4 * rows <= statistics.rows {
        1
    } else {
        FOLDS
    };
    let mut folds = Vec::new();
    let (mut from, mut seen) = (0, 0);
    for (index, block) in blocks.iter().enumerate() {
        seen += block.rows as u64;
        let last = index + 1 == blocks.len();
        // Cut where the rows so far pass the next of `count` equal parts.
        if last || seen * count >= rows * (folds.len() as u64 + 1) {
            folds.push(&blocks[from..=index]);
            from = index + 1;
        }
    }
    folds.retain(|fold| rows_of(fold) < statistics.rows);
    folds
}

pub(super) fn rows_of(fold: &[Block]) -> u64 {
    fold.iter().map(|block| block.rows as u64).sum()
}

/// What a fold is solved from: the statistics without its rows.
pub(super) struct Training {
    full: Vec<f32>,
    diagonal: Vec<f64>,
    pub(super) method: Method,
    /// Whether it depends on rows at all.
    pub(super) uses_rows: bool,
}

impl Training {
    /// `None` where the method's statistic cannot be had without these rows (a maximum over batches).
    pub(super) fn without(
        method: Method,
        statistics: &SiteStatistics,
        full: &[f32],
        fold: &[Block],
        held: u64,
    ) -> Option<Self> {
        let m = statistics.in_features;
        let rows = statistics.rows as f64;
        let left = rows - held as f64;
        let mut training = Self {
            full: Vec::new(),
            diagonal: vec![1.0; m],
            method,
            uses_rows: true,
        };
        match method {
            Method::Lqer => return None,
            Method::ZeroQuantV2 | Method::WeightOnly => training.uses_rows = false,
            Method::LqerMean => {
                let sums = statistics.mean_abs.iter().map(|mean| mean * rows);
                let held_out = channel_sums(fold, m, f64::abs);
                training.diagonal = sums
                    .zip(held_out)
                    .map(|(s, h)| ((s - h).max(0.0) / left).powi(2))
                    .collect();
            }
            Method::Approx => {
                let sums = statistics
                    .second_moment()
                    .into_iter()
                    .map(|mean| mean * rows);
                let held_out = channel_sums(fold, m, |x| x * x);
                training.diagonal = sums
                    .zip(held_out)
                    .map(|(s, h)| (s - h).max(0.0) / left)
                    .collect();
            }
            Method::Exact => training.leave_out(statistics, full, fold, rows, left),
        }
        Some(training)
    }

    /// R without the fold: (N R - X^T X) / (N - n), in the scaling of `full`.
    fn leave_out(
        &mut self,
        statistics: &SiteStatistics,
        full: &[f32],
        fold: &[Block],
        rows: f64,
        left: f64,
    ) {
        let m = statistics.in_features;
        let scale = diagonal_scale(&statistics.diagonal());
        self.full = full.iter().map(|r| r * narrow(rows / left)).collect();
        for block in fold {
            subtract_products(
                &block.values,
                m,
                narrow(1.0 / (left * scale)),
                &mut self.full,
            );
        }
        for i in 0..m {
            // Rounding may leave -1e-9 for a channel that only the fold excites.
            let d = &mut self.full[i * m + i];
            *d = d.max(0.0);
        }
        mirror_lower(&mut self.full, m);
        self.diagonal = (0..m).map(|i| f64::from(self.full[i * m + i])).collect();
    }

    pub(super) fn metric(&self, a: f64) -> Metric<'_> {
        let diagonal = self.diagonal.clone();
        if self.method == Method::Exact {
            Metric::Shrunk {
                full: &self.full,
                diagonal,
                shrinkage: a,
                exact: None,
            }
        } else {
            Metric::of_diagonal(diagonal)
        }
    }
}

fn channel_sums(fold: &[Block], m: usize, of: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; m];
    for row in fold.iter().flat_map(|block| block.values.chunks(m)) {
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, x)| *sum += of(f64::from(*x)));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SiteRows;

    const M: usize = 6;

    fn statistics(batches: &[usize]) -> (SiteStatistics, Vec<f32>) {
        let rows: usize = batches.iter().sum();
        let values: Vec<f32> = (0..rows * M)
            .map(|i| narrow((i as f64 * 0.731).sin() + 0.2))
            .collect();
        let mut statistics = SiteStatistics::new(M);
        let shard = SiteRows {
            site: 0,
            in_features: M,
            values: values.clone(),
            batches: batches.to_vec(),
            sequences: true,
        };
        statistics.fold(&shard, &mut [0.0; M * M]).unwrap();
        (statistics, values)
    }

    /// Leaving rows out by subtraction is the same as never having seen them.
    #[test]
    fn a_fold_is_solved_from_the_other_rows() {
        let (statistics, values) = statistics(&[100, 70, 130, 90]);
        let folds = folds(&statistics);
        assert_eq!(folds.iter().map(|f| f.len()).sum::<usize>(), 4);
        let full: Vec<f32> = {
            let packed = super::super::packed_r::PackedR::new(&statistics.autocorrelation, M);
            packed.to_f32(diagonal_scale(&statistics.diagonal()))
        };
        let scale = diagonal_scale(&statistics.diagonal());
        let training = Training::without(
            Method::Exact,
            &statistics,
            &full,
            folds[0],
            rows_of(folds[0]),
        )
        .unwrap();
        let held: usize = folds[0].iter().map(|b| b.rows).sum();
        let rest = &values[held * M..];
        for i in 0..M {
            for j in 0..M {
                let products = rest
                    .chunks(M)
                    .map(|row| f64::from(row[i]) * f64::from(row[j]));
                let expected = products.sum::<f64>() / (rest.len() / M) as f64 / scale;
                assert!(
                    (f64::from(training.full[j * M + i]) - expected).abs() < 2e-6,
                    "{i} {j}"
                );
            }
        }
        let mean_abs = Training::without(
            Method::LqerMean,
            &statistics,
            &full,
            folds[0],
            rows_of(folds[0]),
        )
        .unwrap();
        let expected = rest
            .chunks(M)
            .map(|row| f64::from(row[2].abs()))
            .sum::<f64>()
            / (rest.len() / M) as f64;
        assert!((mean_abs.diagonal[2] - expected * expected).abs() < 1e-6);
        assert!(Training::without(Method::Lqer, &statistics, &full, folds[0], 1).is_none());
    }

    #[test]
    fn folds_are_even_and_leave_rows() {
        let (even, _) = statistics(&[100; 8]);
        assert_eq!(
            folds(&even).iter().map(|f| f.len()).collect::<Vec<_>>(),
            [2; 4]
        );
        let (uneven, _) = statistics(&[400, 64, 64, 64]);
        assert!(folds(&uneven).iter().all(|f| rows_of(f) < uneven.rows));
        let (single, _) = statistics(&[100]);
        assert!(folds(&single).is_empty());
        let (mut long, _) = statistics(&[100; 8]);
        long.rows = 4000;
        assert_eq!(folds(&long).len(), 1);
    }
}
