//! Judging candidates on rows that they were not solved from, and choosing the shrinkage.
//!
//! The window's blocks are left out of R in folds (`training`), each fold solved from the rest for
//! all candidates at once (`cross_fitting`) and scored on a sample of each of its blocks
//! (`sampled_folds`): the interval is over blocks, whose rows resemble each other. For
//! C = E V V^T the error of a row is ||x E||^2 - ||x E V||^2; that of a block is their mean by
//! weight.
//!
//! The rule is in `scores`. With fewer than four scored blocks: a = m / (m + N), N being the
//! effective number of rows. Blocks that a W~ was rounded under are none of them
//! (`training::unseen`).

use faer::Mat;

use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::output_sketch::OutputSketch;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::judge::cross_fitting::CrossFitting;
use crate::judge::sampled_folds::Folds;
use crate::judge::scores::{BlockErrors, HeldOut, Scores, one_standard_error};
use crate::judge::shared_basis::{BLENDS, SharedBasis};
use crate::judge::training::unseen;
use crate::settings::solve::{Shrinkage, SolveSettings};
use crate::weights::site_layers::{SiteLayers, rank_of};

/// The candidates for the shrinkage a.
pub const SHRINKAGES: [f64; 9] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0];
/// With fewer scored blocks than this the shrinkage follows from counts alone.
const BLOCKS_MIN: usize = 4;

/// The shrinkage that is used, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The shrinkage a.
    pub shrinkage: f64,
    /// Where the shrinkage comes from.
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

/// What the held-out rows say about a site.
pub(crate) struct Verdict<'a> {
    pub(crate) choice: Option<Choice>,
    figures: Figures<'a>,
    /// Layers that could not be scored; they had no say in the choice.
    pub(crate) failed: Vec<FailedMember>,
}

/// Held-out errors of a site's layers.
enum Figures<'a> {
    /// The errors of the chosen candidate, one for each layer.
    Chosen(Vec<Option<HeldOut>>),
    /// No shrinkage had to be chosen: each layer is scored on these folds once it is solved.
    Awaited(Folds<'a>),
}

/// What a layer was solved from.
pub(crate) struct SolvedFrom<'a> {
    pub(crate) statistics: &'a SiteStatistics,
    pub(crate) error: &'a ErrorOperand<'a>,
    /// What stands for R where it is not gathered.
    pub(crate) sketch: Option<&'a OutputSketch>,
}

/// A layer that failed because its numbers overflow or are NaN, by its place in the site.
pub(crate) struct FailedMember {
    pub(crate) member: usize,
    /// What went wrong.
    pub(crate) reason: String,
}

/// What the candidates scored, and the layers that could not be scored.
struct Scored {
    scores: Scores,
    failed: Vec<FailedMember>,
}

impl Verdict<'_> {
    /// The shrinkage that was chosen, 0 for a method without one.
    pub(crate) fn shrinkage(&self) -> f64 {
        self.choice.map_or(0.0, |choice| choice.shrinkage)
    }

    /// The held-out error of a layer that has just been solved from this: `found` has the vectors
    /// of the solve, best first, and then those that follow in its basis.
    ///
    /// # Errors
    /// [`Fatal`] naming the layer: errors that overflow.
    pub(crate) fn held_out(
        &self,
        layers: &SiteLayers<'_>,
        member: usize,
        of: &SolvedFrom<'_>,
        found: [&Mat<f64>; 2],
    ) -> Result<Option<HeldOut>, Fatal> {
        let folds = match &self.figures {
            Figures::Chosen(held_out) => return Ok(held_out[member]),
            Figures::Awaited(folds) if folds.parts.is_empty() => return Ok(None),
            Figures::Awaited(folds) => folds,
        };
        let rank = rank_of(layers.settings.solve.method, layers.layer(member));
        let sketch = folds.scaled(of.sketch, of.error, of.statistics);
        let layer = folds.layer(layers.compute, of.error, sketch.as_ref(), rank);
        let a = [self.shrinkage()];
        let fitting = CrossFitting {
            basis: SharedBasis::of_solve(&layer, found),
            layer,
            candidates: &a,
            blends: &a,
        };
        let failed = |reason| layers.failed(member, reason);
        let errors = scored(&fitting, folds).map_err(failed)?;
        Ok(HeldOut::of(&errors.with[0], &errors.without, folds.rows))
    }
}

/// The errors of a layer on the blocks of all folds.
fn scored(fitting: &CrossFitting<'_>, folds: &Folds<'_>) -> Result<BlockErrors, SolveError> {
    let mut errors = BlockErrors::new(fitting.candidates.len());
    let mut wide = Vec::new();
    let mut parts = folds.parts.iter();
    parts.try_for_each(|part| fitting.score(part, &mut wide, &mut errors))?;
    Ok(errors)
}

/// Scores the candidates on the window and applies the rule. Where the shrinkage is given it makes
/// the folds only.
pub(crate) fn judge<'a>(
    layers: &SiteLayers<'a>,
    statistics: &'a SiteStatistics,
    r: Option<&'a PreparedR<'a>>,
) -> Result<Verdict<'a>, Fatal> {
    let SolveSettings {
        method, shrinkage, ..
    } = layers.settings.solve;
    let blocks = unseen(layers, statistics);
    let (m, rows) = (
        statistics.in_features as f64,
        statistics.extent().effective_rows(),
    );
    let few = m / (m + rows);
    let given = |shrinkage, origin| Choice { shrinkage, origin };
    let choice = match shrinkage {
        // A diagonal method does not depend on a, so that any value does.
        _ if !method.shrinks() => given(1.0, ChoiceOrigin::Given),
        Shrinkage::Fixed(a) => given(a, ChoiceOrigin::Given),
        Shrinkage::Auto if blocks.len() >= BLOCKS_MIN => {
            let folds = Folds::new(layers, statistics, &blocks, r, &SHRINKAGES);
            // Folds of very uneven blocks may leave nothing to solve from.
            if !folds.parts.is_empty() {
                return chosen(layers, statistics, &folds);
            }
            given(few, ChoiceOrigin::FewBlocks)
        }
        Shrinkage::Auto => given(few, ChoiceOrigin::FewBlocks),
    };
    let folds = Folds::new(layers, statistics, &blocks, r, &[choice.shrinkage]);
    Ok(Verdict {
        choice: method.shrinks().then_some(choice),
        figures: Figures::Awaited(folds),
        failed: Vec::new(),
    })
}

/// Scores the candidates and chooses one by the rule.
fn chosen<'a>(
    layers: &SiteLayers<'a>,
    statistics: &SiteStatistics,
    folds: &Folds<'a>,
) -> Result<Verdict<'a>, Fatal> {
    let Scored { scores, failed } = score(layers, statistics, folds)?;
    // Every layer may have failed.
    let best = one_standard_error(&scores);
    let held_out = (0..layers.count()).map(|layer| scores.held_out(layer, best));
    Ok(Verdict {
        choice: Some(Choice {
            shrinkage: SHRINKAGES[best],
            origin: ChoiceOrigin::HeldOut,
        }),
        figures: Figures::Chosen(held_out.collect()),
        failed,
    })
}

fn score(
    layers: &SiteLayers<'_>,
    statistics: &SiteStatistics,
    folds: &Folds<'_>,
) -> Result<Scored, Fatal> {
    let mut failed = Vec::new();
    let mut scores = Scores::new(layers.count(), SHRINKAGES.len(), folds.rows);
    // One layer after the other, so that its E is made once for all folds.
    for member in 0..layers.count() {
        let values = layers.error(member)?;
        let error = ColumnMajor::new(&values, statistics.in_features);
        let outputs = statistics.outputs.as_ref();
        let sketch = outputs.map(|of| of.complete(member, layers.compute, error));
        let sketch = match sketch.transpose() {
            Ok(sketch) => sketch,
            Err(reason) => {
                let reason = layers.failed(member, reason).of_layer()?;
                failed.push(FailedMember { member, reason });
                continue;
            }
        };
        let error = ErrorOperand::new(layers.compute, error, folds.in_f64);
        let rank = rank_of(layers.settings.solve.method, layers.layer(member));
        let sketch = folds.scaled(sketch.as_ref(), &error, statistics);
        let layer = folds.layer(layers.compute, &error, sketch.as_ref(), rank);
        let errors = SharedBasis::of_candidates(&layer).and_then(|basis| {
            let fitting = CrossFitting {
                basis,
                layer,
                candidates: &SHRINKAGES,
                blends: &BLENDS,
            };
            scored(&fitting, folds)
        });
        match errors {
            Ok(errors) => scores.enter(member, errors),
            Err(reason) => {
                let reason = layers.failed(member, reason).of_layer()?;
                failed.push(FailedMember { member, reason });
            }
        }
    }
    Ok(Scored { scores, failed })
}
