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

use faer::Mat;
use qera_core::statistics::BlockMeans;

use crate::calibrate::blocks::Block;
use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::dense::product;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::judge::candidates::Candidates;
use crate::judge::training::{Training, folds, rows_of};
use crate::settings::solve::{Shrinkage, SolveSettings};
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

impl Verdict {
    /// The shrinkage that was chosen, 0 for a method without one.
    pub(crate) fn shrinkage(&self) -> f64 {
        self.choice.map_or(0.0, |choice| choice.shrinkage)
    }
}

/// Scores the candidates on the window and applies the rule.
pub(crate) fn judge(
    layers: &SiteLayers<'_>,
    statistics: &SiteStatistics,
    r: Option<&PreparedR<'_>>,
) -> Result<Verdict, Fatal> {
    let SolveSettings {
        method, shrinkage, ..
    } = layers.settings.solve;
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
    let scored = score(&candidates, statistics, r, layers)?;
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

    fn are_finite(&self, layer: usize, candidate: usize) -> bool {
        let (with, without) = (&self.with[layer][candidate], &self.without[layer]);
        with.iter().chain(without).all(|e| e.is_finite())
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
    candidates: &[f64],
    statistics: &SiteStatistics,
    r: Option<&PreparedR<'_>>,
    layers: &SiteLayers<'_>,
) -> Result<Scores, Fatal> {
    let (compute, method) = (layers.host, layers.settings.solve.method);
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
                training: Training::without(compute, method, statistics, r, fold, candidates)?,
                rows_solved: statistics.rows - rows_of(fold),
                samples: fold
                    .iter()
                    .map(|b| sample(b, statistics.window.rows()))
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
        let error = ColumnMajor::new(&values, statistics.in_features);
        let error = ErrorOperand::new(compute, error);
        let scored = Scored {
            layers,
            member: layer,
            error: &error,
            candidates,
        };
        for part in &parts {
            scored.on(part, &mut scores)?;
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
fn sample(block: &Block, window: usize) -> Vec<f32> {
    let rows = block.stored();
    let share = (SCORED_ROWS * rows.rows()).div_ceil(window.max(1));
    let count = share.max(SCORED_ROWS_MIN).min(rows.rows());
    let row = |i: usize| (2 * i + 1) * rows.rows() / (2 * count);
    (0..count)
        .flat_map(|i| rows.slice(row(i)..row(i) + 1).widened().to_vec())
        .collect()
}

/// A layer that the candidates are scored for.
struct Scored<'a> {
    layers: &'a SiteLayers<'a>,
    /// Its place in the site.
    member: usize,
    error: &'a ErrorOperand<'a>,
    candidates: &'a [f64],
}

impl Scored<'_> {
    /// Scores every candidate on one fold.
    fn on(&self, part: &Part<'_>, scores: &mut Scores) -> Result<(), Fatal> {
        let (m, member) = (self.error.m(), self.member);
        let failed = |reason| self.layers.failed(member, reason);
        let Part {
            training, samples, ..
        } = part;
        let without: Vec<f64> = samples
            .iter()
            .map(|rows| mean_power(&outputs(rows, self.error), rows.len() / m))
            .collect();
        scores.without[member].extend(&without);
        let method = self.layers.settings.solve.method;
        let rank = rank_of(method, self.layers.layer(member));
        let subspaces = Candidates::new(training, self.error, rank);
        let t = subspaces.outputs().transpose().to_owned();
        // x E Q for the rows of each block, s x rows.
        let projected: Vec<Mat<f64>> = samples
            .iter()
            .map(|rows| {
                let rows = self.layers.host.operand(ColumnMajor::new(rows, m));
                rows.times(t.as_ref())
            })
            .collect();
        for (candidate, &a) in self.candidates.iter().enumerate() {
            let rotation = subspaces.top(&training.shares(a), rank).map_err(failed)?;
            let captured = projected.iter().map(|z| {
                let captured = product(rotation.transpose(), z.as_ref());
                mean_power(&captured, z.ncols()) / self.error.scale_squared()
            });
            let with = without.iter().zip(captured);
            let with = with.map(|(w, c)| (w - c).max(0.0));
            scores.with[member][candidate].extend(with);
            if !scores.are_finite(member, candidate) {
                return Err(failed(SolveError::HeldOutOverflow));
            }
        }
        Ok(())
    }
}

/// X E of some rows: rows x n.
fn outputs(rows: &[f32], error: &ErrorOperand<'_>) -> Mat<f64> {
    let m = error.m();
    let x = Mat::from_fn(rows.len() / m, m, |i, j| f64::from(rows[i * m + j]));
    error.outputs(x.as_ref())
}

/// Mean over the rows of the squared length of their images.
fn mean_power(images: &Mat<f64>, rows: usize) -> f64 {
    images.squared_norm_l2() / rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::compute::Compute;
    use crate::host::cores::Cores;
    use crate::host::kernels::Kernel;

    /// Rows of different number than outputs: the mean is over the rows.
    #[test]
    fn the_power_of_outputs_is_a_mean_over_rows() {
        let cores = Cores::new(1);
        let compute = Compute {
            kernel: Kernel::best(),
            cores: &cores,
        };
        // E = [[1, 0, 2], [0, 3, 0]] by columns; rows (1, 1) and (2, 0): |x E|^2 = 14 and 20.
        let error = ColumnMajor::new(&[1.0, 0.0, 0.0, 3.0, 2.0, 0.0], 2);
        let y = outputs(&[1.0, 1.0, 2.0, 0.0], &ErrorOperand::new(compute, error));
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
