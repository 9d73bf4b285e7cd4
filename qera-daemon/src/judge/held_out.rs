//! Judging candidates on rows that they were not solved from, and choosing the shrinkage.
//!
//! The window's blocks are left out of R in folds (`training`), each fold solved from the rest for all candidates at once
//! (`candidates`) and scored on evenly spaced rows of each of its blocks: the interval is over blocks, whose rows resemble
//! each other. For C = E V V^T the error of a row is ||x E||^2 - ||x E V||^2.
//!
//! The rule (design 3.7): the largest a whose mean error, relative to no correction and averaged over the
//! site's layers, is within one standard error (over blocks) of the smallest. The plain minimum picks too
//! little shrinkage, because neighbouring rows come from one text. With fewer than four scored blocks:
//! a = m / (m + N).

use faer::{Mat, MatRef};
use qera_core::reconstruct::Method;
use qera_core::statistics::BlockMeans;

use crate::calibrate::site::SiteStatistics;
use crate::calibrate::window::Block;
use crate::error::Fatal;
use crate::host::compute::Compute;
use crate::host::kernels::products::products;
use crate::host::subspace::basis::product;
use crate::host::subspace::error_matrix::{ErrorByRows, ErrorMatrix};
use crate::judge::candidates::Candidates;
use crate::judge::training::{Training, folds, rows_of};
use crate::settings::solve::Shrinkage;
use crate::weights::site_layers::{SiteLayers, rank_of};

/// The candidates for a.
pub const SHRINKAGES: [f64; 9] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0];
/// Rows that are scored of a full window, and of a block at least.
pub(crate) const SCORED_ROWS: usize = 512;
const SCORED_ROWS_MIN: usize = 8;
/// Fewer scored blocks than this choose nothing.
const BLOCKS_MIN: usize = 4;
const CONFIDENCE: f64 = 0.95;

/// The shrinkage used, and why that one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// a.
    pub shrinkage: f64,
    /// Where it comes from.
    pub origin: ChoiceOrigin,
}

/// Where the shrinkage comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChoiceOrigin {
    /// Given by `--shrinkage`.
    Given,
    /// Chosen on held-out blocks.
    HeldOut,
    /// Too few blocks to choose: m / (m + N).
    FewBlocks,
}

/// Held-out error of one layer: solved without some blocks, tested on them, before A and B are rounded.
/// Where the shrinkage was chosen, the same blocks chose it among nine values, so the mean is slightly
/// optimistic. Null for `lqer`: a maximum over batches cannot leave a batch out.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct HeldOut {
    /// Fewest rows that a tested correction was solved from.
    pub rows_solved: u64,
    /// Rows that were tested on.
    pub rows_tested: u64,
    /// Blocks that the mean is over.
    pub blocks: u64,
    /// Mean over blocks of the output error per row with the correction.
    pub mean: f64,
    /// Half-width of its 95 % Student-t interval; null below two blocks.
    pub(crate) half_width: Option<f64>,
    /// Mean over blocks of the output error per row without correction.
    pub mean_without: f64,
}

/// What the window says about a site.
pub(crate) struct Verdict {
    pub(crate) choice: Option<Choice>,
    pub(crate) held_out: Vec<Option<HeldOut>>,
}

/// Scores the candidates on the window and applies the rule.
pub(crate) fn judge(
    method: Method,
    shrinkage: Shrinkage,
    statistics: &SiteStatistics,
    full: &[f32],
    layers: &SiteLayers<'_>,
) -> Result<Verdict, Fatal> {
    let blocks = statistics.window.blocks();
    let few =
        statistics.in_features as f64 / (statistics.in_features as f64 + statistics.rows as f64);
    let (candidates, origin) = match shrinkage {
        // A diagonal method has no a; one pass with any value scores it.
        _ if !method.shrinks() => (vec![1.0], ChoiceOrigin::Given),
        Shrinkage::Fixed(a) => (vec![a], ChoiceOrigin::Given),
        Shrinkage::Auto if blocks.len() >= BLOCKS_MIN => {
            (SHRINKAGES.to_vec(), ChoiceOrigin::HeldOut)
        }
        Shrinkage::Auto => (vec![few], ChoiceOrigin::FewBlocks),
    };
    let scored = score(method, &candidates, statistics, full, layers)?;
    let best = if origin == ChoiceOrigin::HeldOut {
        one_standard_error(&scored)
    } else {
        0
    };
    let held_out = (0..layers.count())
        .map(|layer| scored.held_out(layer, best))
        .collect();
    // Folds of very uneven blocks may leave nothing to solve from.
    let nothing = scored.without.first().is_none_or(Vec::is_empty);
    let choice = method.shrinks().then(|| match origin {
        ChoiceOrigin::HeldOut if nothing => Choice {
            shrinkage: few,
            origin: ChoiceOrigin::FewBlocks,
        },
        _ => Choice {
            shrinkage: candidates[best],
            origin,
        },
    });
    Ok(Verdict { choice, held_out })
}

/// Errors per layer, candidate and block.
struct Scores {
    /// [layer][candidate][block].
    with: Vec<Vec<Vec<f64>>>,
    /// [layer][block].
    without: Vec<Vec<f64>>,
    candidates: usize,
    rows_solved: u64,
    rows_tested: u64,
}

impl Scores {
    fn held_out(&self, layer: usize, candidate: usize) -> Option<HeldOut> {
        let (with, without) = (&self.with[layer][candidate], &self.without[layer]);
        if with.is_empty() {
            return None;
        }
        let with = block_means(with.iter().copied());
        Some(HeldOut {
            rows_solved: self.rows_solved,
            rows_tested: self.rows_tested,
            blocks: with.count(),
            mean: with.mean(),
            half_width: with
                .interval(CONFIDENCE)
                .map(|interval| interval.half_width),
            mean_without: block_means(without.iter().copied()).mean(),
        })
    }

    /// Error relative to no correction, averaged over the layers, per block.
    fn relative(&self, candidate: usize) -> BlockMeans {
        let ratio = |with: f64, without: f64| if without > 0.0 { with / without } else { 0.0 };
        let layers = self.with.len();
        let blocks = self.without.first().map_or(0, Vec::len);
        block_means((0..blocks).map(|block| {
            let sum: f64 = (0..layers)
                .map(|l| ratio(self.with[l][candidate][block], self.without[l][block]))
                .sum();
            sum / layers as f64
        }))
    }
}

fn block_means(values: impl Iterator<Item = f64>) -> BlockMeans {
    let mut means = BlockMeans::new();
    for value in values {
        means.push(value);
    }
    means
}

/// The largest candidate within one standard error of the best one.
fn one_standard_error(scores: &Scores) -> usize {
    let means: Vec<BlockMeans> = (0..scores.candidates).map(|c| scores.relative(c)).collect();
    let Some(best) = means.iter().min_by(|a, b| a.mean().total_cmp(&b.mean())) else {
        return 0;
    };
    let standard_error = (best.variance().unwrap_or_default() / best.count() as f64).sqrt();
    means
        .iter()
        .rposition(|m| m.mean() <= best.mean() + standard_error)
        .unwrap_or_default()
}

fn score(
    method: Method,
    candidates: &[f64],
    statistics: &SiteStatistics,
    full: &[f32],
    layers: &SiteLayers<'_>,
) -> Result<Scores, Fatal> {
    let mut scores = Scores {
        with: vec![vec![Vec::new(); candidates.len()]; layers.count()],
        without: vec![Vec::new(); layers.count()],
        candidates: candidates.len(),
        rows_solved: statistics.rows,
        rows_tested: 0,
    };
    let parts: Vec<Part<'_>> = folds(statistics)
        .into_iter()
        .filter_map(|fold| {
            Some(Part {
                training: Training::without(method, statistics, full, fold, candidates)?,
                rows_solved: statistics.rows - rows_of(fold),
                samples: fold
                    .iter()
                    .map(|b| sample(b, statistics.window.rows(), statistics.in_features))
                    .collect(),
            })
        })
        .collect();
    for part in &parts {
        let tested: usize = part.samples.iter().map(Vec::len).sum();
        scores.rows_tested += (tested / statistics.in_features) as u64;
        if part.training.uses_rows {
            scores.rows_solved = scores.rows_solved.min(part.rows_solved);
        }
    }
    if parts.is_empty() {
        return Ok(scores);
    }
    // A layer at a time: its E is made once for all folds.
    for layer in 0..layers.count() {
        let values = layers.error(layer)?;
        let error = ErrorMatrix::new(&values, layers.layer(layer).in_features);
        let by_rows = ErrorByRows::new(layers.host, error);
        for part in &parts {
            score_part(
                (layer, error, &by_rows),
                candidates,
                part,
                layers,
                &mut scores,
            )?;
        }
    }
    Ok(scores)
}

/// What is solved without a fold, and the rows of each of its blocks that it is scored on.
struct Part<'a> {
    training: Training<'a>,
    rows_solved: u64,
    samples: Vec<Vec<f32>>,
}

/// Evenly spaced rows of a block: all where the window has few.
fn sample(block: &Block, window: usize, m: usize) -> Vec<f32> {
    let share = (SCORED_ROWS * block.rows).div_ceil(window.max(1));
    let count = share.max(SCORED_ROWS_MIN).min(block.rows);
    let row = |i: usize| (2 * i + 1) * block.rows / (2 * count) * m;
    (0..count)
        .flat_map(|i| &block.values[row(i)..row(i) + m])
        .copied()
        .collect()
}

/// Scores every candidate for one layer on one fold.
fn score_part(
    (layer, error, by_rows): (usize, ErrorMatrix<'_>, &ErrorByRows),
    candidates: &[f64],
    part: &Part<'_>,
    layers: &SiteLayers<'_>,
    scores: &mut Scores,
) -> Result<(), Fatal> {
    let host = layers.host;
    let Part {
        training, samples, ..
    } = part;
    let without: Vec<f64> = samples
        .iter()
        .map(|rows| mean_power(&outputs(host, rows, error), rows.len() / error.m))
        .collect();
    scores.without[layer].extend(&without);
    let rank = rank_of(layers.settings.solve.method, layers.layer(layer));
    let subspaces = Candidates::new(host, training, (error, by_rows), rank);
    let t = subspaces.outputs().transpose().to_owned();
    // x E Q for the rows of each block, s x rows.
    let projected: Vec<Mat<f64>> = samples
        .iter()
        .map(|rows| products(host, t.as_ref(), (rows, error.m)))
        .collect();
    for (candidate, &a) in candidates.iter().enumerate() {
        let rotation = subspaces
            .top(&training.shares(a), rank)
            .map_err(|reason| layers.failed(layer, reason))?;
        let captured = projected.iter().map(|z| {
            let captured = product(rotation.transpose(), z.as_ref());
            mean_power(&captured, z.ncols()) / by_rows.scale_squared()
        });
        let with = without.iter().zip(captured);
        scores.with[layer][candidate].extend(with.map(|(w, c)| (w - c).max(0.0)));
        if !scores.with[layer][candidate]
            .iter()
            .chain(&scores.without[layer])
            .all(|e| e.is_finite())
        {
            return Err(layers.failed(layer, "products overflow on held-out rows".into()));
        }
    }
    Ok(())
}

/// X E of some rows: rows x n.
fn outputs(host: Compute<'_>, rows: &[f32], error: ErrorMatrix<'_>) -> Mat<f64> {
    let x = MatRef::from_column_major_slice(rows, error.m, rows.len() / error.m);
    let x = Mat::from_fn(x.ncols(), x.nrows(), |i, j| f64::from(x[(j, i)]));
    products(host, x.as_ref(), (error.values, error.m))
}

/// Mean over the rows of the squared length of their images.
fn mean_power(images: &Mat<f64>, rows: usize) -> f64 {
    images.squared_norm_l2() / rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cores::Cores;
    use crate::host::kernels::Kernel;

    /// Rows of different number than outputs: the mean is over the rows.
    #[test]
    fn the_power_of_outputs_is_a_mean_over_rows() {
        let cores = Cores::new(1);
        let host = Compute {
            kernel: Kernel::best(),
            cores: &cores,
        };
        // E = [[1, 0, 2], [0, 3, 0]] by columns; rows (1, 1) and (2, 0): |x E|^2 = 14 and 20.
        let error = ErrorMatrix {
            values: &[1.0, 0.0, 0.0, 3.0, 2.0, 0.0],
            m: 2,
            n: 3,
        };
        let y = outputs(host, &[1.0, 1.0, 2.0, 0.0], error);
        assert!((mean_power(&y, 2) - 17.0).abs() < 1e-9);
    }

    fn scores(with: Vec<Vec<f64>>) -> Scores {
        let blocks = with[0].len();
        let candidates = with.len();
        Scores {
            with: vec![with],
            without: vec![vec![2.0; blocks]],
            candidates,
            rows_solved: 1,
            rows_tested: 1,
        }
    }

    /// Relative to no correction the means are .5, .545 and .55, and the best one has standard error .0456.
    #[test]
    fn the_largest_within_one_standard_error() {
        let best = vec![0.8, 0.9, 1.1, 1.2]; // relative .4 .45 .55 .6
        let near = vec![1.09; 4]; // relative .545
        let far = vec![1.10; 4]; // relative .55
        assert_eq!(
            one_standard_error(&scores(vec![best.clone(), near.clone(), far.clone()])),
            1
        );
        assert_eq!(
            one_standard_error(&scores(vec![best, far, near])),
            2,
            "not only the neighbours"
        );
    }

    #[test]
    fn layers_count_alike_whatever_their_size() {
        let mut two = scores(vec![vec![1.0, 1.0], vec![1.5, 1.5]]);
        two.with.push(vec![vec![300.0, 300.0], vec![100.0, 100.0]]);
        two.without.push(vec![400.0, 400.0]);
        let relative = |c| two.relative(c).mean();
        assert!((relative(0) - (0.5 + 0.75) / 2.0).abs() < 1e-15);
        assert!((relative(1) - (0.75 + 0.25) / 2.0).abs() < 1e-15);
    }
}
