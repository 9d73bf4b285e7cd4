//! Folds of the window, and what each is solved from: the site's statistics without the fold's
//! rows.

use faer::Mat;

use qera_core::reconstruct::Method;

use crate::calibrate::blocks::Block;
use crate::calibrate::site::SiteStatistics;
use crate::host::compute::Compute;
use crate::host::second_moment::channels::diagonal_scale;
use crate::host::second_moment::metric::{blend, scaled};
use crate::host::second_moment::prepared::PreparedR;
use crate::host::second_moment::without::WithoutRows;
use crate::host::solve_error::SolveError;
use crate::judge::site_metric::{ChannelMeans, metric_diagonal};
use crate::weights::site_layers::SiteLayers;

/// Folds when the window is a large part of the rows.
const FOLDS: u64 = 4;

/// The window's blocks that may be scored: a W~ that was rounded under rows of one would look
/// better on them than it is.
pub(crate) fn unseen<'s>(
    layers: &SiteLayers<'_>,
    statistics: &'s SiteStatistics,
) -> Vec<&'s Block> {
    let blocks = statistics.window.blocks().iter();
    let seen = |block: &&Block| layers.have_seen(block.number);
    blocks.filter(|block| !seen(block)).collect()
}

/// These blocks of the window: one fold when they are at most a quarter of the rows, else four of
/// nearly equal rows. Every fold leaves rows to solve from.
pub(crate) fn folds<'f, 's>(
    statistics: &SiteStatistics,
    blocks: &'f [&'s Block],
) -> Vec<&'f [&'s Block]> {
    let rows = rows_of(blocks);
    let count = if 4 * rows <= statistics.rows {
        1
    } else {
        FOLDS
    };
    let mut folds = Vec::new();
    let (mut from, mut seen) = (0, 0);
    for (index, block) in blocks.iter().enumerate() {
        seen += block.rows() as u64;
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

pub(crate) fn rows_of(fold: &[&Block]) -> u64 {
    fold.iter().map(|block| block.rows() as u64).sum()
}

/// What a fold is solved from: the statistics without its rows.
pub(crate) struct Training<'a> {
    /// R without the fold; `None` where the method has a diagonal S.
    r: Option<WithoutRows<'a>>,
    /// The diagonal of S without the fold, in the scaling of R.
    diagonal: Vec<f64>,
    /// The shrinkage where only one is asked for.
    single: Option<f64>,
    /// Whether it depends on rows at all.
    pub(crate) uses_rows: bool,
}

/// A site without one of its folds.
#[derive(Clone, Copy)]
struct LeftOut<'a> {
    statistics: &'a SiteStatistics,
    fold: &'a [&'a Block],
}

impl LeftOut<'_> {
    fn rows_left(&self) -> f64 {
        self.statistics.rows as f64 - rows_of(self.fold) as f64
    }

    /// Means over the rows that are left, given those over all.
    fn means(&self, means: &[f64], of: fn(f64) -> f64) -> Vec<f64> {
        let (rows, left) = (self.statistics.rows as f64, self.rows_left());
        let held_out = channel_sums(self.fold, self.statistics.in_features, of);
        let sums = means.iter().map(|mean| mean * rows);
        // Rounding may leave -1e-9 for a channel that only the fold excites.
        sums.zip(held_out)
            .map(|(s, h)| (s - h).max(0.0) / left)
            .collect()
    }
}

impl ChannelMeans for LeftOut<'_> {
    fn squares(&self) -> Vec<f64> {
        self.means(&self.statistics.mean_squares(), |x| x * x)
    }

    fn of_r(&self) -> Vec<f64> {
        self.means(&self.statistics.diagonal(), |x| x * x)
    }

    fn abs(&self) -> Vec<f64> {
        self.means(&self.statistics.mean_abs, f64::abs)
    }

    fn batch_max(&self) -> Result<Vec<f64>, SolveError> {
        Err(SolveError::LeftOut)
    }
}

impl<'a> Training<'a> {
    /// For these candidates. `None` where the method's statistic cannot be had without these rows
    /// (a maximum over batches).
    pub(crate) fn without(
        compute: Compute<'a>,
        method: Method,
        statistics: &'a SiteStatistics,
        r: Option<&'a PreparedR<'a>>,
        fold: &'a [&'a Block],
        candidates: &[f64],
    ) -> Option<Self> {
        if !method.can_leave_out() {
            return None;
        }
        let left_out = LeftOut { statistics, fold };
        let diagonal = metric_diagonal(method, statistics.in_features, &left_out).ok()?;
        let r = r.filter(|_| method.needs_r());
        let scale = r.map_or_else(|| diagonal_scale(&diagonal), |r| r.scale);
        let (rows, left) = (statistics.rows as f64, left_out.rows_left());
        let blocks = || fold.iter().map(|block| block.stored());
        Some(Self {
            r: r.map(|r| WithoutRows::new(compute, r, blocks(), rows, left)),
            diagonal: diagonal.into_iter().map(|d| d / scale).collect(),
            single: match candidates {
                _ if !method.shrinks() => Some(1.0),
                [a] => Some(*a),
                _ => None,
            },
            uses_rows: method.uses_rows(),
        })
    }

    /// S T for T^T (b x m), under each end between which the candidates lie.
    pub(crate) fn apply(&self, t: &Mat<f64>) -> Vec<Mat<f64>> {
        let on_diagonal = || scaled(t.clone(), &self.diagonal);
        match (&self.r, self.single) {
            (None, _) => vec![on_diagonal()],
            (Some(_), Some(a)) if a >= 1.0 => vec![on_diagonal()],
            (Some(r), Some(a)) => vec![blend(r.times(t.as_ref()), a, &self.diagonal, t)],
            (Some(r), None) => vec![r.times(t.as_ref()), on_diagonal()],
        }
    }

    /// The shares of the ends in the S of a candidate.
    pub(crate) fn shares(&self, a: f64) -> Vec<f64> {
        match self.single {
            Some(_) => vec![1.0],
            None => vec![1.0 - a, a],
        }
    }
}

fn channel_sums(fold: &[&Block], m: usize, of: impl Fn(f64) -> f64) -> Vec<f64> {
    let (mut sums, mut row) = (vec![0.0; m], vec![0.0; m]);
    for stored in fold.iter().map(|block| block.stored()) {
        for first in (0..stored.rows()).map(|i| i * m) {
            stored.widen(first..first + m, &mut row);
            let channels = sums.iter_mut().zip(&row);
            channels.for_each(|(sum, x)| *sum += of(f64::from(*x)));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cores::Cores;
    use crate::host::kernels::Kernel;
    use crate::host::kernels::rank_update::Scratch;
    use crate::host::rounding::narrow;
    use crate::source::rows::Batch;

    const M: usize = 6;

    fn compute(cores: &Cores) -> Compute<'_> {
        Compute {
            kernel: Kernel::best(),
            cores,
        }
    }

    fn statistics(batches: &[usize]) -> (SiteStatistics, Vec<f32>) {
        let rows: usize = batches.iter().sum();
        let values: Vec<f32> = (0..rows * M)
            .map(|i| narrow((i as f64 * 0.731).sin() + 0.2))
            .collect();
        let mut statistics = SiteStatistics::whole(M);
        let batch = Batch {
            site: 0,
            in_features: M,
            bytes: values
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect::<Vec<_>>()
                .into(),
            dtype: qera_core::dtype::FloatDtype::F32,
            batches: batches.to_vec(),
            sequences: true,
        };
        let cores = Cores::new(1);
        let compute = compute(&cores);
        statistics
            .fold(&batch, compute, &mut Scratch::default())
            .unwrap();
        (statistics, values)
    }

    /// Leaving rows out by subtraction is the same as never having seen them.
    #[test]
    fn a_fold_is_solved_from_the_other_rows() {
        let (statistics, values) = statistics(&[100, 70, 130, 90]);
        let blocks = all(&statistics);
        let folds = folds(&statistics, &blocks);
        assert_eq!(folds.iter().map(|f| f.len()).sum::<usize>(), 4);
        let scale = diagonal_scale(&statistics.diagonal());
        let cores = Cores::new(1);
        let compute = compute(&cores);
        let r = PreparedR::new(compute, statistics.second_moment.packed().unwrap());
        let both = [0.0, 1.0];
        let of =
            |method| Training::without(compute, method, &statistics, Some(&r), folds[0], &both);
        let held: usize = folds[0].iter().map(|block| block.rows()).sum();
        let rest = &values[held * M..];
        // S I under both ends.
        let ends = of(Method::Exact).unwrap().apply(&Mat::identity(M, M));
        for i in 0..M {
            for j in 0..M {
                let products = rest
                    .chunks(M)
                    .map(|row| f64::from(row[i]) * f64::from(row[j]));
                let expected = products.sum::<f64>() / (rest.len() / M) as f64 / scale;
                assert!((ends[0][(i, j)] - expected).abs() < 2e-6, "{i} {j}");
                let expected = if i == j { expected } else { 0.0 };
                assert!((ends[1][(i, j)] - expected).abs() < 2e-6, "{i} {j}");
            }
        }
        let mean_abs = of(Method::LqerMean).unwrap();
        let mean = |i: usize| {
            let values = rest.chunks(M).map(|row| f64::from(row[i].abs()));
            values.sum::<f64>() / (rest.len() / M) as f64
        };
        let ratio = mean_abs.diagonal[2] / mean_abs.diagonal[1];
        assert!((ratio - (mean(2) / mean(1)).powi(2)).abs() < 1e-6);
        assert!(of(Method::Lqer).is_none());
        let left_out = LeftOut {
            statistics: &statistics,
            fold: folds[0],
        };
        let refused = metric_diagonal(Method::Lqer, M, &left_out);
        assert_eq!(refused, Err(SolveError::LeftOut));
    }

    #[test]
    fn folds_are_even_and_leave_rows() {
        let lengths = |of: &SiteStatistics, blocks: &[&Block]| -> Vec<usize> {
            folds(of, blocks).iter().map(|fold| fold.len()).collect()
        };
        let (even, _) = statistics(&[100; 8]);
        assert_eq!(lengths(&even, &all(&even)), [2; 4]);
        let (uneven, _) = statistics(&[400, 64, 64, 64]);
        let blocks = all(&uneven);
        let cut = folds(&uneven, &blocks);
        assert!(cut.iter().all(|f| rows_of(f) < uneven.rows));
        let (single, _) = statistics(&[100]);
        assert!(lengths(&single, &all(&single)).is_empty());
        let (mut long, _) = statistics(&[100; 8]);
        long.rows = 4000;
        assert_eq!(lengths(&long, &all(&long)).len(), 1);
        // Where only some may be scored, these are what the rule is about.
        let every_fourth: Vec<&Block> = all(&even).into_iter().step_by(4).collect();
        assert_eq!(lengths(&even, &every_fourth), [2]);
        let every_second: Vec<&Block> = all(&even).into_iter().step_by(2).collect();
        assert_eq!(lengths(&even, &every_second), [1; 4]);
        assert!(lengths(&even, &[]).is_empty());
    }

    fn all(statistics: &SiteStatistics) -> Vec<&Block> {
        statistics.window.blocks().iter().collect()
    }
}
