//! Folds of the window, and what each is solved from: the site's statistics without the fold's rows.
//!
//! R without a fold is never formed: it is (N R - X^T X) / (N - n), and X^T (X T) takes less than X^T X as long as T has
//! fewer columns than R.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use qera_core::reconstruct::{Method, StatisticKind};

use crate::calibrate::site::SiteStatistics;
use crate::calibrate::window::Block;
use crate::host::compute::Compute;
use crate::host::kernels::products::products;
use crate::host::rounding::narrow;
use crate::host::second_moment::metric::{blend, diagonal_scale, scaled};

/// Folds when the window is a large part of the rows.
const FOLDS: u64 = 4;

/// The window's blocks: one fold when they are at most a quarter of the rows, else four of nearly equal rows.
/// Every fold leaves rows to solve from.
pub(crate) fn folds(statistics: &SiteStatistics) -> Vec<&[Block]> {
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

pub(crate) fn rows_of(fold: &[Block]) -> u64 {
    fold.iter().map(|block| block.rows as u64).sum()
}

/// What a fold is solved from: the statistics without its rows.
pub(crate) struct Training<'a> {
    /// R of all rows / scale; empty where the method has a diagonal S.
    full: &'a [f32],
    fold: &'a [Block],
    /// R without the fold is `kept` R - `taken` X^T X.
    kept: f64,
    taken: f64,
    /// The diagonal of S without the fold, in the scaling of `full`.
    diagonal: Vec<f64>,
    /// The shrinkage where only one is asked for.
    single: Option<f64>,
    /// Whether it depends on rows at all.
    pub(crate) uses_rows: bool,
}

impl<'a> Training<'a> {
    /// For these candidates. `None` where the method's statistic cannot be had without these rows (a maximum over batches).
    pub(crate) fn without(
        method: Method,
        statistics: &SiteStatistics,
        full: &'a [f32],
        fold: &'a [Block],
        candidates: &[f64],
    ) -> Option<Self> {
        let m = statistics.in_features;
        let rows = statistics.rows as f64;
        let left = rows - rows_of(fold) as f64;
        let without = |means: Vec<f64>, of: fn(f64) -> f64| -> Vec<f64> {
            let held_out = channel_sums(fold, m, of);
            let sums = means.into_iter().map(|mean| mean * rows);
            // Rounding may leave -1e-9 for a channel that only the fold excites.
            sums.zip(held_out)
                .map(|(s, h)| (s - h).max(0.0) / left)
                .collect()
        };
        let mut scale = 1.0;
        let diagonal = match method.statistic_kind() {
            StatisticKind::BatchMaxMeanAbs => return None,
            StatisticKind::Identity => vec![1.0; m],
            StatisticKind::MeanAbs => {
                let means = without(statistics.mean_abs.clone(), f64::abs);
                means.into_iter().map(|mean| mean * mean).collect()
            }
            StatisticKind::SecondMoment => without(statistics.second_moment(), |x| x * x),
            StatisticKind::Autocorrelation => {
                let diagonal = statistics.diagonal();
                scale = diagonal_scale(&diagonal);
                without(diagonal, |x| x * x)
            }
        };
        if !method.shrinks() {
            scale = diagonal_scale(&diagonal);
        }
        Some(Self {
            full,
            fold,
            kept: rows / left,
            taken: 1.0 / (left * scale),
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
    pub(crate) fn apply(&self, host: Compute<'_>, t: &Mat<f64>) -> Vec<Mat<f64>> {
        match self.single {
            Some(a) if a >= 1.0 => vec![scaled(t.clone(), &self.diagonal)],
            Some(a) => vec![blend(
                self.left_out(host, t),
                (1.0 - a, a),
                &self.diagonal,
                t,
            )],
            None => vec![self.left_out(host, t), scaled(t.clone(), &self.diagonal)],
        }
    }

    /// The shares of the ends in the S of a candidate.
    pub(crate) fn shares(&self, a: f64) -> Vec<f64> {
        match self.single {
            Some(_) => vec![1.0],
            None => vec![1.0 - a, a],
        }
    }

    /// R T without the fold.
    fn left_out(&self, host: Compute<'_>, t: &Mat<f64>) -> Mat<f64> {
        let (b, m) = (t.nrows(), t.ncols());
        let mut rt = products(host, t.as_ref(), (self.full, m)) * faer::Scale(self.kept);
        for block in self.fold {
            let xt = products(host, t.as_ref(), (&block.values, m));
            let xt = Mat::from_fn(b, xt.ncols(), |i, j| narrow(self.taken * xt[(i, j)]));
            let x = MatRef::from_row_major_slice(&block.values, block.rows, m);
            let mut taken = Mat::<f32>::zeros(b, m);
            matmul(
                taken.as_mut(),
                Accum::Replace,
                xt.as_ref(),
                x,
                1.0,
                Par::Seq,
            );
            for (to, from) in rt.col_iter_mut().zip(taken.col_iter()) {
                let from = from.iter().map(|x| f64::from(*x));
                to.iter_mut().zip(from).for_each(|(to, from)| *to -= from);
            }
        }
        rt
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
    use crate::host::cores::Cores;
    use crate::host::kernels::Kernel;
    use crate::host::kernels::rank_update::Scratch;
    use crate::host::second_moment::packed::PackedR;
    use crate::source::rows::Batch;

    const M: usize = 6;

    fn host(cores: &Cores) -> Compute<'_> {
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
        let mut statistics = SiteStatistics::new(M);
        let shard = Batch {
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
        let host = host(&cores);
        statistics
            .fold(&shard, host, &mut Scratch::default())
            .unwrap();
        (statistics, values)
    }

    /// Leaving rows out by subtraction is the same as never having seen them.
    #[test]
    fn a_fold_is_solved_from_the_other_rows() {
        let (statistics, values) = statistics(&[100, 70, 130, 90]);
        let folds = folds(&statistics);
        assert_eq!(folds.iter().map(|f| f.len()).sum::<usize>(), 4);
        let scale = diagonal_scale(&statistics.diagonal());
        let cores = Cores::new(1);
        let packed = PackedR::new(&statistics.autocorrelation, M);
        let full = packed.to_f32(host(&cores), scale);
        let both = [0.0, 1.0];
        let of = |method| Training::without(method, &statistics, &full, folds[0], &both);
        let held: usize = folds[0].iter().map(|b| b.rows).sum();
        let rest = &values[held * M..];
        // S I under both ends.
        let ends = of(Method::Exact)
            .unwrap()
            .apply(host(&cores), &Mat::identity(M, M));
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
