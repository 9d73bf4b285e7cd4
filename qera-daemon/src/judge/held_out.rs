//! Judging candidates on rows that they were not solved from, and choosing the shrinkage.
//!
//! The window's blocks are left out of R in folds (`training`), each fold solved from the rest for
//! all candidates at once (`candidates`) and scored on a sample of each of its blocks
//! (`calibrate::sample`): the interval is over blocks, whose rows resemble each other. For
//! C = E V V^T the error of a row is ||x E||^2 - ||x E V||^2; that of a block is their mean by
//! weight.
//!
//! The rule is in `scores`. With fewer than four scored blocks: a = m / (m + N), N being the
//! effective number of rows. Blocks that a W~ was rounded under are none of them
//! (`training::unseen`).

use faer::Mat;

use crate::calibrate::blocks::Block;
use crate::calibrate::sample::sampled;
use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::dense::product;
use crate::host::operand::Operand;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::judge::candidates::Candidates;
use crate::judge::scores::{HeldOut, Scores, one_standard_error};
use crate::judge::training::{Training, extent_of, folds, unseen};
use crate::settings::solve::{Shrinkage, SolveSettings};
use crate::weights::site_layers::{SiteLayers, rank_of};

/// The candidates for a.
pub const SHRINKAGES: [f64; 9] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0];
/// Rows that are scored of a full window, and of a block at least.
pub(crate) const SCORED_ROWS: usize = 512;
const SCORED_ROWS_MIN: usize = 8;
/// Fewer scored blocks than this choose nothing.
const BLOCKS_MIN: usize = 4;

/// The shrinkage used, and why that one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// a.
    pub shrinkage: f64,
    /// Where it comes from.
    pub origin: ChoiceOrigin,
}

/// Where the shrinkage comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChoiceOrigin {
    /// Given by `--shrinkage`.
    Given,
    /// Chosen on held-out blocks.
    HeldOut,
    /// Too few blocks to choose: m / (m + N).
    FewBlocks,
}

/// What the window says about a site.
pub(crate) struct Verdict {
    pub(crate) choice: Option<Choice>,
    pub(crate) held_out: Vec<Option<HeldOut>>,
    /// Layers that cannot be scored: they had no say.
    pub(crate) failed: Vec<FailedMember>,
}

/// A layer of a site, by its place in it, whose numbers are none.
pub(crate) struct FailedMember {
    pub(crate) member: usize,
    /// What went wrong.
    pub(crate) reason: String,
}

/// What the candidates scored.
struct Scored {
    scores: Scores,
    failed: Vec<FailedMember>,
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
    let blocks = unseen(layers, statistics);
    let (m, rows) = (
        statistics.in_features as f64,
        statistics.extent().effective_rows(),
    );
    let few = m / (m + rows);
    let (candidates, origin) = match shrinkage {
        // A diagonal method has no a; one pass with any value scores it.
        _ if !method.shrinks() => (vec![1.0], ChoiceOrigin::Given),
        Shrinkage::Fixed(a) => (vec![a], ChoiceOrigin::Given),
        Shrinkage::Auto if blocks.len() >= BLOCKS_MIN => {
            (SHRINKAGES.to_vec(), ChoiceOrigin::HeldOut)
        }
        Shrinkage::Auto => (vec![few], ChoiceOrigin::FewBlocks),
    };
    let Scored { scores, failed } = score(&candidates, statistics, &blocks, r, layers)?;
    let best = if origin == ChoiceOrigin::HeldOut {
        one_standard_error(&scores)
    } else {
        0
    };
    let held_out = (0..layers.count())
        .map(|layer| scores.held_out(layer, best))
        .collect();
    // Folds of very uneven blocks may leave nothing to solve from.
    let nothing = scores.without.iter().all(Vec::is_empty);
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
    Ok(Verdict {
        choice,
        held_out,
        failed,
    })
}

fn score(
    candidates: &[f64],
    statistics: &SiteStatistics,
    blocks: &[&Block],
    r: Option<&PreparedR<'_>>,
    layers: &SiteLayers<'_>,
) -> Result<Scored, Fatal> {
    let mut failed = Vec::new();
    let (compute, method) = (layers.compute, layers.settings.solve.method);
    let mut scores = Scores::new(layers.count(), candidates.len(), statistics.rows);
    let rows = usize::try_from(extent_of(blocks).rows).unwrap_or(usize::MAX);
    let parts: Vec<Part<'_>> = folds(statistics, blocks)
        .into_iter()
        .filter_map(|fold| {
            Some(Part {
                training: Training::without(compute, method, statistics, r, fold, candidates)?,
                rows_solved: statistics.rows - extent_of(fold).rows,
                samples: fold.iter().map(|block| sample(block, rows)).collect(),
            })
        })
        .collect();
    for part in &parts {
        let tested = part.samples.iter().map(|sample| sample.values.len());
        scores.rows_tested += (tested.sum::<usize>() / statistics.in_features) as u64;
        if part.training.uses_rows {
            scores.rows_solved = scores.rows_solved.min(part.rows_solved);
        }
    }
    if parts.is_empty() {
        return Ok(Scored { scores, failed });
    }
    let operand = |rows| compute.operand(ColumnMajor::new(rows, statistics.in_features));
    let samples = parts.iter().map(|part| part.samples.iter());
    let samples: Vec<Vec<Operand<'_>>> = samples
        .map(|of_part| of_part.map(|sample| operand(&sample.values[..])).collect())
        .collect();
    let in_f64 = r.is_some_and(|r| r.in_f64);
    // A layer at a time: its E is made once for all folds.
    for layer in 0..layers.count() {
        let values = layers.error(layer)?;
        let error = ColumnMajor::new(&values, statistics.in_features);
        let error = ErrorOperand::new(compute, error, in_f64);
        let scored = ScoredMember {
            layers,
            member: layer,
            error: &error,
            candidates,
            in_f64,
        };
        let mut folds = parts.iter().zip(&samples);
        let on_all = folds.try_for_each(|(part, samples)| scored.on(part, samples, &mut scores));
        if let Err(fatal) = on_all {
            let (member, reason) = (layer, fatal.of_layer()?);
            failed.push(FailedMember { member, reason });
            scores.leave_out(layer);
        }
    }
    Ok(Scored { scores, failed })
}

/// What is solved without a fold, and the rows of each of its blocks that it is scored on.
struct Part<'a> {
    training: Training<'a>,
    rows_solved: u64,
    samples: Vec<Sample>,
}

/// Rows of a block, each times the square root of its weight: the squared length of its image under
/// any matrix is then that of the row by weight.
struct Sample {
    values: Vec<f32>,
    /// The sum of their weights, in the units of the roots.
    weight: f64,
}

/// Rows that are spread over a block: all where there are few in all.
fn sample(block: &Block, rows_in_all: usize) -> Sample {
    let rows = block.stored();
    let share = (SCORED_ROWS * rows.rows()).div_ceil(rows_in_all.max(1));
    let count = share.max(SCORED_ROWS_MIN).min(rows.rows());
    let drawn = sampled(rows, block.number, count);
    let (rows, m) = (drawn.stored(), block.in_features);
    let mut values = vec![0.0; count * m];
    rows.widen(0..values.len(), &mut values);
    let Some(weights) = rows.weights else {
        let weight = count as f64;
        return Sample { values, weight };
    };
    let mut weight = 0.0;
    for (i, to) in values.chunks_exact_mut(m).enumerate() {
        let root = weights.root(i);
        to.iter_mut().for_each(|x| *x *= root);
        weight += f64::from(root).powi(2);
    }
    Sample { values, weight }
}

/// A layer that the candidates are scored for.
struct ScoredMember<'a> {
    layers: &'a SiteLayers<'a>,
    /// Its place in the site.
    member: usize,
    error: &'a ErrorOperand<'a>,
    candidates: &'a [f64],
    /// Whether f32 products are not enough.
    in_f64: bool,
}

impl ScoredMember<'_> {
    /// Scores every candidate on one fold; `prepared` are the fold's samples, made ready.
    fn on(
        &self,
        part: &Part<'_>,
        prepared: &[Operand<'_>],
        scores: &mut Scores,
    ) -> Result<(), Fatal> {
        let member = self.member;
        let failed = |reason| self.layers.failed(member, reason);
        let Part {
            training, samples, ..
        } = part;
        let without: Vec<f64> = samples
            .iter()
            .map(|rows| mean_power(&outputs(&rows.values, self.error), rows.weight))
            .collect();
        scores.without[member].extend(&without);
        let method = self.layers.settings.solve.method;
        let rank = rank_of(method, self.layers.layer(member));
        let subspaces = Candidates::new(training, self.error, rank);
        let t = subspaces.outputs().transpose().to_owned();
        // x E Q for the rows of each block, s x rows.
        let project = |rows: &Operand<'_>| {
            if self.in_f64 {
                rows.times_f64(t.as_ref())
            } else {
                rows.times(t.as_ref())
            }
        };
        let projected: Vec<Mat<f64>> = prepared.iter().map(project).collect();
        for (candidate, &a) in self.candidates.iter().enumerate() {
            let rotation = subspaces.top(&training.shares(a), rank).map_err(failed)?;
            let captured = projected.iter().zip(samples).map(|(z, rows)| {
                let captured = product(rotation.transpose(), z.as_ref());
                mean_power(&captured, rows.weight) / self.error.scale_squared()
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

/// Mean over rows of so much weight of the squared length of their images.
fn mean_power(images: &Mat<f64>, weight: f64) -> f64 {
    images.squared_norm_l2() / weight
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
        let y = outputs(
            &[1.0, 1.0, 2.0, 0.0],
            &ErrorOperand::new(compute, error, false),
        );
        assert!((mean_power(&y, 2.0) - 17.0).abs() < 1e-9);
    }
}
