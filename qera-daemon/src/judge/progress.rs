//! What a site and its layers carry from one solve point to the next.

use core::time::Duration;

use crate::calibrate::blocks::Block;
use crate::host::column_major::ColumnMajor;
use crate::host::factors::WrittenCorrection;
use crate::judge::evidence::{Evidence, score};
use crate::judge::schedule::first_point;
use faer::Mat;
use serde::{Deserialize, Serialize};

/// How many corrections and pieces of evidence are remembered.
const REMEMBERED: usize = 2;

/// What a site does with its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Folding {
    /// All rows are folded.
    #[default]
    Open,
    /// The layers have converged; `--after-convergence` says which rows are folded.
    Closed,
    /// All rows are folded again: new rows showed a drift, and the site has not converged since.
    Reopened,
}

/// What a site carries from one solve point to the next.
#[derive(Debug, Clone)]
pub(crate) struct SiteProgress {
    /// Rows at which the site is solved next.
    pub(crate) next_point: u64,
    /// What the site does with its rows.
    pub(crate) folding: Folding,
    /// Rows that R held at the latest solve point that solved.
    pub(crate) rows_at_last_solve: u64,
    /// Whether the latest solve point with enough rows was spared, because no layer could gain by
    /// it.
    pub(crate) spared: bool,
    /// The progress of the site's layers, in its order.
    pub(crate) layers: Vec<LayerProgress>,
}

impl SiteProgress {
    /// The progress of a site before its first solve point.
    #[must_use]
    pub(crate) fn new(in_features: usize, layers: usize) -> Self {
        Self {
            next_point: first_point(in_features),
            folding: Folding::Open,
            rows_at_last_solve: 0,
            spared: false,
            layers: vec![LayerProgress::default(); layers],
        }
    }

    /// Keeps the site's solve points, and drops corrections and evidence: they belong to a W~ that
    /// is going to be made anew.
    pub(crate) fn begin_without_corrections(&mut self) {
        (self.folding, self.spared) = (Folding::Open, false);
        self.layers.fill_with(LayerProgress::default);
    }

    /// Sets the next solve point. The site has seen `seen` rows, and `folded` of them are in R.
    /// Returns whether R has enough new rows for a solve: always while the site is open, and half
    /// as many again as at the last solve when it is closed.
    pub(crate) const fn advance(&mut self, seen: u64, folded: u64) -> bool {
        self.next_point = seen + folded.div_ceil(2);
        let closed = matches!(self.folding, Folding::Closed);
        let solves =
            !closed || folded >= self.rows_at_last_solve + self.rows_at_last_solve.div_ceil(2);
        if solves {
            self.rows_at_last_solve = folded;
        }
        solves
    }
}

/// How the latest correction of a layer was solved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct SolveRecord {
    /// The shrinkage a.
    pub(crate) shrinkage: f64,
    /// f of the correction, before rounding.
    pub(crate) error: f64,
}

/// What a layer carries from one solve point to the next.
#[derive(Debug, Clone)]
pub(crate) struct LayerProgress {
    /// The two latest corrections at most, the latest first.
    pub(crate) corrections: Vec<WrittenCorrection>,
    /// Vectors that the next solve starts from.
    pub(crate) vectors: Mat<f64>,
    /// The two latest pieces of evidence at most, the latest last.
    pub(crate) evidence: Vec<Evidence>,
    /// Set where more rows change nothing: E is zero, or the method has no statistics.
    pub(crate) insensitive_to_rows: bool,
    /// How the latest correction was solved.
    pub(crate) solve: Option<SolveRecord>,
    /// The evidence with which the site was closed, while it is closed.
    pub(crate) reference: Option<Evidence>,
}

/// A layer's progress, for status and log.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct LayerSummary {
    /// The latest evidence.
    pub(crate) evidence: Option<Evidence>,
    /// Whether the layer has converged.
    pub(crate) converged: bool,
    /// What its site does with its rows.
    pub(crate) folding: Folding,
    /// Rows that its site has not folded.
    pub(crate) rows_skipped: u64,
    /// Rows at which its site is solved next; 0 where it has no solve point yet.
    pub(crate) next_point: u64,
}

/// Why a layer has not converged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Lack {
    /// The two latest corrections have not been scored on newer rows yet.
    Evidence,
    /// The gain's upper limit is not below the tolerance.
    Gain(f64),
    /// The gain was scored on this number of blocks, which is too small.
    Blocks(u64),
    /// The gain was below the tolerance at the latest solve point, but not at the one before.
    SecondPoint,
}

impl LayerSummary {
    /// Why the layer has not converged; `None` where it has.
    #[must_use]
    pub(crate) fn lack(&self, tolerance: f64) -> Option<Lack> {
        if self.converged {
            return None;
        }
        let evidence = self.evidence.filter(|e| e.gain_upper.is_some());
        Some(match evidence {
            Some(e) if e.below(tolerance) => Lack::SecondPoint,
            Some(Evidence {
                gain_upper: Some(upper),
                ..
            }) if upper >= tolerance => Lack::Gain(upper),
            Some(e) => Lack::Blocks(e.blocks),
            None => Lack::Evidence,
        })
    }
}

impl Default for LayerProgress {
    fn default() -> Self {
        Self {
            corrections: Vec::new(),
            vectors: Mat::zeros(0, 0),
            evidence: Vec::new(),
            insensitive_to_rows: false,
            solve: None,
            reference: None,
        }
    }
}

impl LayerProgress {
    /// Whether the layer has converged: its gain was below the tolerance at two successive solve
    /// points and no drift was seen since, or nothing can be gained.
    #[must_use]
    pub(crate) fn converged(&self, tolerance: f64) -> bool {
        self.insensitive_to_rows
            || self.reference.is_some()
            || (self.evidence.len() == REMEMBERED
                && self
                    .evidence
                    .iter()
                    .all(|evidence| evidence.below(tolerance)))
    }

    /// Remembers the correction of a solve point.
    pub(crate) fn push(
        &mut self,
        written: WrittenCorrection,
        vectors: Mat<f64>,
        solve: SolveRecord,
    ) {
        self.corrections.insert(0, written);
        self.corrections.truncate(REMEMBERED);
        self.vectors = vectors;
        self.solve = Some(solve);
    }

    /// Scores the remembered corrections on rows newer than they are. `error` is the layer's E.
    pub(crate) fn test(&mut self, rows: u64, blocks: &[Block], error: ColumnMajor<'_>) {
        if let Some(evidence) = score(rows, blocks, error, &self.corrections) {
            self.evidence.push(evidence);
            let surplus = self.evidence.len().saturating_sub(REMEMBERED);
            self.evidence.drain(..surplus);
        }
    }
}

/// A solve point: what the site carries on from the one before, and the rows that came since.
#[derive(Debug)]
pub(crate) struct SolvePoint<'p> {
    /// The site's progress, which the solve updates.
    pub(crate) progress: &'p mut SiteProgress,
    /// Rows newer than every correction in `progress`.
    pub(crate) newer: &'p [Block],
    /// The time that scoring took is added to this.
    pub(crate) scoring: &'p mut Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::evidence::Evidence;
    use crate::judge::schedule::longest_wait;

    #[test]
    fn points_are_counts_of_rows() {
        let mut progress = SiteProgress::new(4096, 3);
        assert_eq!((progress.next_point, progress.layers.len()), (1024, 3));
        assert!(progress.advance(1024, 1024));
        assert_eq!(progress.next_point, 1536);
        assert!(progress.advance(1537, 1537));
        assert_eq!(progress.next_point, 2306);
        assert_eq!(SiteProgress::new(64, 1).next_point, 256);
        // Points at 300, 500 and 800 rows; then 200 are left.
        assert_eq!(longest_wait(64, [100; 10].into_iter()), 300);
    }

    #[test]
    fn a_closed_site_is_looked_at_in_steps_and_solved_when_r_has_grown() {
        let mut progress = SiteProgress::new(64, 1);
        assert!(progress.advance(1000, 1000));
        progress.folding = Folding::Closed;
        assert!(!progress.advance(1500, 1000));
        assert_eq!(progress.next_point, 2000);
        assert!(!progress.advance(2000, 1499));
        assert!(progress.advance(2749, 1500));
        assert_eq!(
            (progress.rows_at_last_solve, progress.next_point),
            (1500, 3499)
        );
    }

    #[test]
    fn converged_takes_two_solve_points_of_eight_blocks() {
        let evidence = |blocks, gain_upper| Evidence {
            rows: 1,
            rows_tested: 1,
            blocks,
            error: 1.0,
            half_width: None,
            error_without: 2.0,
            relative_half_width: None,
            gain: Some(0.0),
            gain_upper,
        };
        let with = |list: &[Evidence]| LayerProgress {
            evidence: list.to_vec(),
            ..LayerProgress::default()
        };
        let good = evidence(8, Some(0.009));
        assert!(with(&[good, good]).converged(0.01));
        assert!(!with(&[good]).converged(0.01));
        assert!(!with(&[good, good]).converged(0.009));
        assert!(!with(&[evidence(7, Some(0.0)), good]).converged(0.01));
        assert!(!with(&[good, evidence(8, None)]).converged(0.01));
        let lack = |latest, tolerance| {
            let summary = LayerSummary {
                evidence: latest,
                ..LayerSummary::default()
            };
            summary.lack(tolerance)
        };
        assert_eq!(lack(None, 0.01), Some(Lack::Evidence));
        assert_eq!(lack(Some(evidence(8, None)), 0.01), Some(Lack::Evidence));
        assert_eq!(lack(Some(good), 0.009), Some(Lack::Gain(0.009)));
        let few = Some(evidence(7, Some(0.0)));
        assert_eq!(lack(few, 0.01), Some(Lack::Blocks(7)));
        assert_eq!(lack(Some(good), 0.01), Some(Lack::SecondPoint));
        let converged = LayerSummary {
            converged: true,
            ..LayerSummary::default()
        };
        assert_eq!(converged.lack(0.01), None);
        let nothing = LayerProgress {
            insensitive_to_rows: true,
            ..LayerProgress::default()
        };
        assert!(nothing.converged(0.01));
    }
}
