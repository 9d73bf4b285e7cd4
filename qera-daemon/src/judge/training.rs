//! Folds of the window, and what each is solved from: the site's statistics without the fold's
//! rows.

use faer::Mat;

use qera_core::reconstruct::Method;

use crate::calibrate::blocks::Block;
use crate::calibrate::site::SiteStatistics;
use crate::host::compute::Compute;
use crate::host::dense::product;
use crate::host::kernels::row_weights::Extent;
use crate::host::row_images::RowImages;
use crate::host::second_moment::channels::diagonal_scale;
use crate::host::second_moment::metric::{blend, scaled};
use crate::host::second_moment::without::{Scaling, WithoutRows};
use crate::host::solve_error::SolveError;
use crate::judge::ends::Ends;
use crate::judge::site_metric::{ChannelMeans, metric_diagonal};
use crate::weights::site_layers::SiteLayers;

/// The number of folds when the window is a large part of the rows.
pub(crate) const FOLDS: f64 = 4.0;
/// The least share of the weight that must be left without a fold. Statistics without a fold are a
/// difference of two sums; where the smaller one is this share of the larger, f32 products still
/// show it to a thousandth. Rows without weights always leave more than this, or nothing: the
/// window is at most 4096 of them.
const LEFT_MIN: f64 = 1.0 / 16384.0;

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

/// Cuts these blocks of the window into folds: one when they are at most a quarter of the rows by
/// weight, else four of nearly equal weight. Each fold leaves rows to solve from.
///
/// A block that weighs more than an equal part is a fold by itself, wherever it stands, and the
/// blocks before and behind it are cut into the parts that are left. In a fold with others it would
/// leave little to solve from.
pub(crate) fn folds<'f, 's>(
    statistics: &SiteStatistics,
    blocks: &'f [&'s Block],
) -> Vec<&'f [&'s Block]> {
    let (all, own) = (statistics.extent().weight, extent_of(blocks).weight);
    let count = if 4.0 * own <= all { 1.0 } else { FOLDS };
    let weight_of = |block: &&Block| block.stored().extent().weight;
    let is_heavy = |block: &&Block| block.weights.is_some() && weight_of(block) * count > own;
    let light = blocks.iter().filter(|block| !is_heavy(block));
    let (rest, parts) = (
        light.clone().map(weight_of).sum::<f64>(),
        count - (blocks.len() - light.count()) as f64,
    );
    let mut folds = Vec::new();
    let (mut from, mut seen, mut cuts) = (0, 0.0, 1.0);
    for (index, block) in blocks.iter().enumerate() {
        let heavy = is_heavy(block);
        if heavy && from < index {
            folds.push(&blocks[from..index]);
            from = index;
        }
        if !heavy {
            seen += weight_of(block);
        }
        // Cut where the weight so far passes the next of the equal parts.
        let passes = seen * parts >= rest * cuts;
        if heavy || passes || index + 1 == blocks.len() {
            folds.push(&blocks[from..=index]);
            from = index + 1;
        }
        if !heavy && passes {
            cuts += 1.0;
        }
    }
    folds.retain(|fold| leaves(statistics, fold, LEFT_MIN));
    folds
}

/// Whether the site without these blocks of the window has at least this share of its weight left
/// to solve from.
pub(crate) fn leaves(statistics: &SiteStatistics, blocks: &[&Block], share: f64) -> bool {
    let all = statistics.extent();
    let left = all.without(&extent_of(blocks));
    left.rows > 0 && left.weight >= share * all.weight
}

pub(crate) fn extent_of(fold: &[&Block]) -> Extent {
    let none = Extent::rows(0);
    let blocks = fold.iter().map(|block| block.stored().extent());
    blocks.fold(none, |sum, block| sum.with(&block))
}

/// The statistics that a fold is solved from: the site's without the fold's rows.
pub(crate) struct Training<'a> {
    /// R without the fold, or what stands for it; `None` where the method has a diagonal S.
    r: Option<WithoutRows<'a>>,
    /// The diagonal of S without the fold, scaled like R; empty where no candidate uses it.
    diagonal: Vec<f64>,
    /// Whether S depends on rows at all.
    pub(crate) uses_rows: bool,
}

/// Some columns T = s E V, and their products that are needed to apply a fold's S.
pub(crate) struct Images<'t> {
    /// T^T: b x m.
    pub(crate) t: &'t Mat<f64>,
    /// T^T R, scaled like R; without rows where the method has a diagonal S, and where R is not
    /// gathered.
    pub(crate) rt: &'t Mat<f64>,
    /// (S V)^T for the sketch S that stands for R; without rows where none does.
    pub(crate) along: &'t Mat<f64>,
    /// The products of T with the rows left out (`WithoutRows::outputs`).
    pub(crate) outputs: RowImages,
}

impl<'t> Images<'t> {
    /// The images of T under the S of all rows.
    pub(crate) fn of_all(t: &'t Mat<f64>, rt: &'t Mat<f64>, along: &'t Mat<f64>) -> Self {
        Self {
            t,
            rt,
            along,
            outputs: RowImages::zeros(false, 0, 0),
        }
    }

    /// T^T S U for the S of all rows, as it is scaled: b x c; empty where S is a diagonal.
    pub(crate) fn between(&self, u: &Images<'_>) -> Mat<f64> {
        if self.along.nrows() > 0 {
            product(self.along.as_ref(), u.along.transpose())
        } else if self.rt.nrows() > 0 {
            product(self.rt.as_ref(), u.t.transpose())
        } else {
            Mat::new()
        }
    }
}

/// A site without one of its folds.
#[derive(Clone, Copy)]
struct LeftOut<'f, 'a> {
    statistics: &'a SiteStatistics,
    fold: &'f [&'a Block],
}

impl LeftOut<'_, '_> {
    fn weight_left(&self) -> f64 {
        self.statistics.extent().weight - extent_of(self.fold).weight
    }

    /// The means over the rows that are left, given the means over all rows.
    fn means(&self, means: &[f64], of: impl Fn(f64) -> f64) -> Vec<f64> {
        let (weight, left) = (self.statistics.extent().weight, self.weight_left());
        let held_out = channel_sums(self.fold, self.statistics.in_features, of);
        let sums = means.iter().map(|mean| mean * weight);
        // Rounding may leave -1e-9 for a channel that only the fold excites.
        sums.zip(held_out)
            .map(|(s, h)| (s - h).max(0.0) / left)
            .collect()
    }
}

impl ChannelMeans for LeftOut<'_, '_> {
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
    /// What this fold is solved from, for these candidates. `None` where the method's statistic
    /// cannot be had without the fold's rows (a maximum over batches).
    pub(crate) fn without(
        compute: Compute<'a>,
        method: Method,
        statistics: &'a SiteStatistics,
        r: Option<Scaling>,
        fold: &[&'a Block],
        candidates: &[f64],
    ) -> Option<Self> {
        if !method.can_leave_out() {
            return None;
        }
        let left_out = LeftOut { statistics, fold };
        let r = r.filter(|_| method.needs_r());
        // The diagonal needs sums over all rows of the fold; R alone needs none.
        let diagonal = if r.is_some() && candidates.iter().all(|a| *a <= 0.0) {
            Vec::new()
        } else {
            metric_diagonal(method, statistics.in_features, &left_out).ok()?
        };
        let scale = r.map_or_else(|| diagonal_scale(&diagonal), |r| r.scale);
        let (weight, left) = (statistics.extent().weight, left_out.weight_left());
        let blocks = || fold.iter().map(|block| block.stored());
        Some(Self {
            r: r.map(|r| WithoutRows::new(compute, r, blocks(), weight, left)),
            diagonal: diagonal.into_iter().map(|d| d / scale).collect(),
            uses_rows: method.uses_rows(),
        })
    }

    /// The images of T under this fold's statistics, given T^T (b x m), T^T R scaled like R, and
    /// what a sketch makes of it. `wide` is memory in which rows are widened, some at a time.
    pub(crate) fn images<'t>(
        &self,
        t: &'t Mat<f64>,
        rt: &'t Mat<f64>,
        along: &'t Mat<f64>,
        wide: &mut Vec<f32>,
    ) -> Images<'t> {
        let outputs = self.r.as_ref().map(|r| r.outputs(t.as_ref(), wide));
        Images {
            outputs: outputs.unwrap_or_else(|| RowImages::zeros(false, 0, 0)),
            ..Images::of_all(t, rt, along)
        }
    }

    /// The factor by which the S of a sketch counts under the shrinkage a, beside
    /// [`times`](Self::times).
    pub(crate) fn sketch_share(&self, a: f64) -> f64 {
        let kept = self.r.as_ref().map_or(0.0, WithoutRows::kept);
        (1.0 - a) * kept
    }

    /// The product S T V under the shrinkage a, transposed (b x m), without the part of a sketch,
    /// for V that combines the columns of T.
    pub(crate) fn times(
        &self,
        a: f64,
        of: &Images<'_>,
        v: &Mat<f64>,
        wide: &mut Vec<f32>,
    ) -> Mat<f64> {
        let Some(r) = self.r.as_ref().filter(|_| a < 1.0) else {
            return scaled(rotated(of.t, v), &self.diagonal);
        };
        let times = r.times_given(&rotated(of.rt, v), &of.outputs.rotated(v), wide);
        if a > 0.0 {
            blend(times, a, &self.diagonal, &rotated(of.t, v))
        } else {
            times
        }
    }

    /// T^T S U under both ends of the blend of candidates, given [`between`](Images::between) of
    /// both: b x c.
    pub(crate) fn ends(&self, t: &Images<'_>, u: &Images<'_>, between: &Mat<f64>) -> Ends {
        let full = self.r.as_ref();
        let full = full.map(|r| r.between(between, &t.outputs, &u.outputs));
        let diagonal = (!self.diagonal.is_empty()).then(|| {
            let scaled = scaled(t.t.clone(), &self.diagonal);
            product(scaled.as_ref(), u.t.transpose())
        });
        Ends { full, diagonal }
    }
}

/// What belongs to the columns of T (T^T, T^T R), after T was multiplied by this rotation.
pub(crate) fn rotated(of: &Mat<f64>, rotation: &Mat<f64>) -> Mat<f64> {
    if of.nrows() == 0 {
        return Mat::new();
    }
    product(rotation.transpose(), of.as_ref())
}

fn channel_sums(fold: &[&Block], m: usize, of: impl Fn(f64) -> f64) -> Vec<f64> {
    let (mut sums, mut row) = (vec![0.0; m], vec![0.0; m]);
    for stored in fold.iter().map(|block| block.stored()) {
        for index in 0..stored.rows() {
            stored.widen(index * m..(index + 1) * m, &mut row);
            let weight = stored.weight_of(index);
            let channels = sums.iter_mut().zip(&row);
            channels.for_each(|(sum, x)| *sum += weight * of(f64::from(*x)));
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
    use crate::host::kernels::row_weights::RowWeights;
    use crate::host::rounding::narrow;
    use crate::host::second_moment::prepared::PreparedR;
    use crate::source::rows::Batch;

    const M: usize = 6;

    fn compute(cores: &Cores) -> Compute<'_> {
        Compute::new(Kernel::best(), cores)
    }

    fn statistics(batches: &[usize]) -> (SiteStatistics, Vec<f32>) {
        weighted(batches, None)
    }

    fn weighted(batches: &[usize], weights: Option<&[f32]>) -> (SiteStatistics, Vec<f32>) {
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
            weights: weights.map(|weights| RowWeights::new(weights.to_vec())),
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

    /// S, and S times the unit vectors, under both ends.
    fn between_units(training: &Training<'_>, r: &PreparedR<'_>) -> [Mat<f64>; 2] {
        let (unit, mut wide) = (Mat::identity(M, M), Vec::new());
        let rt = r.times(unit.as_ref());
        let none = Mat::new();
        let images = training.images(&unit, &rt, &none, &mut wide);
        let ends = training.ends(&images, &images, &images.between(&images));
        [0.0, 1.0].map(|a| {
            let times = training.times(a, &images, &unit, &mut wide);
            assert!((&times - ends.blend(a)).norm_max() < 1e-6);
            times
        })
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
        let scaling = Some(Scaling::of(&r));
        let both = [0.0, 1.0];
        let of = |method| Training::without(compute, method, &statistics, scaling, folds[0], &both);
        let held: usize = folds[0].iter().map(|block| block.rows()).sum();
        let rest = &values[held * M..];
        // I S I under both ends.
        let ends = between_units(&of(Method::Exact).unwrap(), &r);
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

    /// With weights it is the mean by weight of the others, formed or applied, whatever the fold
    /// weighs.
    #[test]
    fn a_fold_with_weights_is_left_out_by_weight() {
        let weights: Vec<f32> = (0..390).map(|i| [2.0, 0.5, 30.0][i % 3]).collect();
        let (statistics, values) = weighted(&[100, 70, 130, 90], Some(&weights));
        let blocks = all(&statistics);
        let folds = folds(&statistics, &blocks);
        let cores = Cores::new(1);
        let compute = compute(&cores);
        let packed = statistics.second_moment.packed().unwrap();
        let r = PreparedR::new(compute, packed);
        let scaling = Some(Scaling::of(&r));
        let held: usize = folds[0].iter().map(|block| block.rows()).sum();
        let rest = || values[held * M..].chunks(M).zip(&weights[held..]);
        let weight: f64 = rest().map(|(_, w)| f64::from(*w)).sum();
        let expected = |of: &dyn Fn(&[f32]) -> f64| {
            let terms = rest().map(|(row, w)| f64::from(*w) * of(row));
            terms.sum::<f64>() / weight
        };
        let training = |method, ends: &[f64]| {
            Training::without(compute, method, &statistics, scaling, folds[0], ends).unwrap()
        };
        let applied = between_units(&training(Method::Exact, &[0.0, 1.0]), &r);
        let stored = folds[0].iter().map(|block| block.stored());
        let all_weight = statistics.extent().weight;
        let formed = statistics
            .second_moment
            .less(compute, stored.clone(), &statistics.extent());
        let formed = formed.unwrap();
        let in_f64 = stored.fold(Mat::<f64>::zeros(M, M), |sum, block| {
            let values = block.widened();
            let x = |row: usize, i: usize| f64::from(values[row * M + i]);
            let products = |i: usize, j: usize| {
                let terms =
                    (0..block.rows()).map(|row| block.weight_of(row) * x(row, i) * x(row, j));
                terms.sum::<f64>()
            };
            sum + Mat::from_fn(M, M, products)
        });
        for i in 0..M {
            for j in i..M {
                let product = expected(&|row| f64::from(row[i]) * f64::from(row[j]));
                let near = |found: f64| (found - product).abs() < 4e-6;
                assert!(near(r.scale * applied[0][(i, j)]), "{i} {j}");
                assert!(near(formed.packed().unwrap().row(i)[j - i]), "{i} {j}");
                let all = all_weight * packed.row(i)[j - i];
                assert!(near((all - in_f64[(i, j)]) / weight), "{i} {j}");
            }
        }
        let abs = training(Method::LqerMean, &[1.0]).diagonal;
        let mean = |i: usize| expected(&|row| f64::from(row[i].abs()));
        assert!((abs[2] / abs[1] - (mean(2) / mean(1)).powi(2)).abs() < 1e-6);
        assert!(
            statistics
                .second_moment
                .less(compute, core::iter::empty(), &Extent::rows(0))
                .is_none()
        );
    }

    /// A block with nearly all of the weight leaves nothing that f32 products show.
    #[test]
    fn folds_are_cut_by_weight() {
        let mut weights = vec![1.0; 400];
        weights[..100].fill(1e9);
        let (heavy, _) = weighted(&[100; 4], Some(&weights));
        let blocks = all(&heavy);
        let lengths = |of: &SiteStatistics| -> Vec<usize> {
            folds(of, &all(of)).iter().map(|fold| fold.len()).collect()
        };
        assert_eq!(lengths(&heavy), [1; 3], "the first one is no fold");
        assert!(leaves(&heavy, &blocks[1..], LEFT_MIN) && !leaves(&heavy, &blocks[..1], LEFT_MIN));
        let eight: Vec<f32> = (0..800).map(|i| if i < 400 { 3.0 } else { 1.0 }).collect();
        let (uneven, _) = weighted(&[100; 8], Some(&eight));
        assert_eq!(lengths(&uneven), [2, 1, 1, 4], "by rows it is two each");
    }

    /// Wherever a heavy block stands, it is a fold by itself, or none where it leaves too little,
    /// and the others are cut as evenly as they can be.
    #[test]
    fn a_heavy_block_is_a_fold_by_itself() {
        let lengths = |heavy: usize, weight: f32| -> Vec<usize> {
            let mut weights = vec![1.0; 700];
            weights[heavy * 100..][..100].fill(weight);
            let (statistics, _) = weighted(&[100; 7], Some(&weights));
            let blocks = all(&statistics);
            let folds = folds(&statistics, &blocks);
            folds.iter().map(|fold| fold.len()).collect()
        };
        // 6 of 26 parts left by the heavy one, and of 1e9.
        for (weight, own) in [(20.0, &[1][..]), (1e9, &[])] {
            let with = |before: &[usize], behind: &[usize]| [before, own, behind].concat();
            assert_eq!(lengths(0, weight), with(&[], &[2; 3]), "{weight}");
            assert_eq!(lengths(2, weight), with(&[2], &[2; 2]), "{weight}");
            assert_eq!(lengths(6, weight), with(&[2; 3], &[]), "{weight}");
        }
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
        assert!(cut.iter().all(|f| extent_of(f).rows < uneven.rows));
        let (single, _) = statistics(&[100]);
        assert!(lengths(&single, &all(&single)).is_empty());
        let (mut long, _) = statistics(&[100; 8]);
        (long.rows, long.weight) = (4000, 4000.0);
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
