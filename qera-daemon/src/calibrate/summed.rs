//! Folds rows that came as sums: into R, into the moments of single channels and, where the sums
//! have them, into mean |x| and the maximum of batch means. The rows themselves are not there, so
//! that the window and the rows kept aside get none.
//!
//! A sum counts once and whole: for a closed site (`follow`) it is folded or left out by the draw
//! for its place in the stream.

use qera_core::statistics::StatisticError;

use crate::calibrate::blocks::draw;
use crate::calibrate::follow::{OTHER_DRAWS, RANGE};
use crate::calibrate::site::{FoldError, SiteStatistics};
use crate::host::second_moment::packed::Trace;
use crate::source::sums::SummedRows;

impl SiteStatistics {
    /// Folds a sum over rows into the statistics.
    ///
    /// # Errors
    /// [`FoldError`].
    pub(crate) fn fold_sum(&mut self, sum: &SummedRows) -> Result<(), FoldError> {
        if sum.extent.squares.is_some() {
            self.weight_squares.get_or_insert(self.rows as f64);
        }
        let seen = self.extent();
        let all = seen.with(&sum.extent);
        self.second_moment.fold_sum(sum.xtx(), &sum.extent, &seen)?;
        if let Some(sums) = &sum.abs_sum {
            check_width(self.in_features, sums)?;
            // Sums without |x| add nothing; `without_abs_sum` then says that there is no mean.
            for (mean, sum) in self.mean_abs.iter_mut().zip(sums) {
                *mean = (seen.weight * *mean + sum) / all.weight;
            }
        }
        if let Some(maxima) = &sum.batch_max {
            check_width(self.in_features, maxima)?;
            let channels = self.batch_max.iter_mut().zip(maxima);
            channels.for_each(|(most, other)| *most = most.max(*other));
        }
        let rows = sum.rows();
        let missing = |is_there: bool| if is_there { 0 } else { rows };
        self.summed.rows += rows;
        self.summed.without_abs_sum += missing(sum.abs_sum.is_some());
        self.summed.without_batch_max += missing(sum.batch_max.is_some());
        if sum.xtx().is_f32() {
            self.summed.weight_in_f32 += sum.extent.weight;
        }
        (self.rows, self.weight, self.weight_squares) = (all.rows, all.weight, all.squares);
        Ok(())
    }

    /// Folds a sum of a closed site with this chance; otherwise counts its rows as left out.
    ///
    /// # Errors
    /// [`FoldError`].
    pub(crate) fn follow_sum(&mut self, sum: &SummedRows, share: f64) -> Result<(), FoldError> {
        if (draw(self.rows_seen() | OTHER_DRAWS) as f64) < share * RANGE {
            return self.fold_sum(sum);
        }
        if sum.extent.squares.is_some() {
            self.weight_squares.get_or_insert(self.rows as f64);
        }
        self.rows_skipped += sum.rows();
        Ok(())
    }
}

impl SiteStatistics {
    /// A trace under R, by what is known of R: massive channels are exact to f64 where they came as
    /// rows, or as sums in f64.
    pub(crate) fn as_known(&self, trace: Trace) -> Trace {
        if self.summed.weight_in_f32 > 0.0 {
            return Trace {
                massive: 0.0,
                ordinary: trace.sum(),
            };
        }
        trace
    }
}

const fn check_width(expected: usize, values: &[f64]) -> Result<(), StatisticError> {
    let found = values.len();
    if found == expected {
        Ok(())
    } else {
        Err(StatisticError::InFeatures { expected, found })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::kernels::row_weights::Extent;
    use crate::host::second_moment::SecondMomentKind;
    use crate::host::second_moment::massive::ERROR_CONSTANT;

    const M: usize = 2;

    /// A sum over this many rows (x, 2 x), half of which are negated.
    fn sum(rows: u64, x: f64) -> SummedRows {
        let square = rows as f64 * x * x;
        let xtx = [square, 2.0 * square, 4.0 * square];
        SummedRows::taken(M, Extent::rows(rows), &xtx)
    }

    fn new(kind: SecondMomentKind) -> SiteStatistics {
        SiteStatistics::new(M, kind, 0.0)
    }

    #[test]
    fn sums_are_means_whatever_is_gathered() {
        let with = |abs: f64, max: f64| {
            let mut sum = sum(10, 3.0);
            sum.abs_sum = Some(vec![abs, 2.0 * abs]);
            sum.batch_max = Some(vec![max, 2.0 * max]);
            sum
        };
        for kind in [SecondMomentKind::Packed, SecondMomentKind::Diagonal] {
            let mut statistics = new(kind);
            statistics.fold_sum(&with(30.0, 3.0)).unwrap();
            statistics.fold_sum(&with(10.0, 2.0)).unwrap();
            assert_eq!(statistics.diagonal(), [9.0, 36.0]);
            assert_eq!(statistics.mean_squares(), [9.0, 36.0]);
            assert_eq!(statistics.mean_abs, [2.0, 4.0]);
            assert_eq!(statistics.batch_max, [3.0, 6.0]);
            assert_eq!(statistics.extent(), Extent::rows(20));
            let summed = statistics.summed;
            assert_eq!((summed.rows, summed.without_abs_sum), (20, 0));
            if let Some(r) = statistics.second_moment.packed() {
                assert_eq!(r.row(0), [9.0, 18.0]);
            }
        }
        let narrow = SummedRows::taken(1, Extent::rows(1), &[1.0]);
        assert!(new(SecondMomentKind::Diagonal).fold_sum(&narrow).is_err());
        assert!(new(SecondMomentKind::Packed).fold_sum(&narrow).is_err());
    }

    /// Beside rows with another mean, E[x^2] is that of all rows, and weights are counted.
    #[test]
    fn moments_of_both_are_those_of_all() {
        let mut statistics = new(SecondMomentKind::Packed);
        let channels = statistics.second_moment.channels_mut();
        (channels.mean, channels.m2) = (vec![5.0, -1.0], vec![8.0, 0.0]);
        (statistics.rows, statistics.weight) = (4, 4.0);
        let weighted = Extent {
            weight: 12.0,
            squares: Some(40.0),
            ..Extent::rows(6)
        };
        let xtx = [12.0 * 9.0, 0.0, 12.0 * 0.25];
        let sum = SummedRows::taken(M, weighted, &xtx);
        statistics.fold_sum(&sum).unwrap();
        let expected = [(4.0 * 25.0 + 8.0 + 108.0) / 16.0, (4.0 * 1.0 + 3.0) / 16.0];
        for (found, expected) in statistics.mean_squares().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-14, "{found} {expected}");
        }
        assert_eq!(
            (statistics.rows, statistics.weight_squares),
            (10, Some(44.0))
        );
        assert_eq!(statistics.summed.without_batch_max, 6);
    }

    /// A closed site folds whole sums, about as many as its share says, and counts the others as
    /// left out.
    #[test]
    fn a_closed_site_folds_a_share_of_the_sums() {
        let mut statistics = new(SecondMomentKind::Packed);
        for _ in 0..100 {
            statistics.follow_sum(&sum(8, 1.0), 0.0).unwrap();
        }
        assert_eq!((statistics.rows, statistics.rows_skipped), (0, 800));
        for _ in 0..3200 {
            statistics.follow_sum(&sum(8, 1.0), 1.0 / 16.0).unwrap();
        }
        let folded = statistics.rows / 8;
        assert!((150..=250).contains(&folded), "{folded}");
        assert_eq!(statistics.rows_seen(), 3300 * 8);
        statistics.follow_sum(&sum(8, 1.0), 1.0).unwrap();
        assert_eq!(statistics.rows / 8, folded + 1);
    }

    /// Massive channels of f32 sums are known no better than the other channels.
    #[test]
    fn what_came_in_f32_is_not_known_in_f64() {
        let trace = Trace {
            massive: 3.0,
            ordinary: 1.0,
        };
        let mut statistics = new(SecondMomentKind::Packed);
        statistics.fold_sum(&sum(8, 1.0)).unwrap();
        assert!((statistics.as_known(trace).massive - 3.0).abs() < 1e-15);
        statistics.summed.weight_in_f32 = 4.0;
        let known = statistics.as_known(trace);
        assert!(known.massive.abs() < 1e-15 && (known.ordinary - 4.0).abs() < 1e-15);
        assert!((statistics.summed.error(8.0) / (0.5 * ERROR_CONSTANT) - 1.0).abs() < 1e-12);
    }
}
