//! When a site may leave rows out, and when it has to take them again (`--after-convergence
//! sample`, `stop`).
//!
//! A site is closed at the solve point whose evidence shows that all of its layers have converged.
//! Its corrections go on being scored on new rows at its solve points. With q = mean(e) / mean(e
//! without correction) over the new blocks, q_0 the same when the site was closed, and tolerance t,
//! the layer has drifted when the lower limit of q - (1 + t) q_0 is above zero: the error left is
//! larger by more than the tolerance, whatever the size of the rows. The half-width of that
//! difference of independent means is
//!
//!   sqrt(h^2 + (1 + t)^2 h_0^2),
//!
//! each h with its own Student t, which is no narrower than Cochran's approximation of the
//! Behrens-Fisher problem. More rows would help as well if the latest solve's gain had a lower
//! limit above the tolerance. Either re-opens the site: evidence begins anew, and only the latest
//! correction is remembered, because its gain over the one before says nothing of the rows to come.
//!
//! The level is [`DRIFT_CONFIDENCE`], not that of convergence: the question is asked for every
//! layer at every solve point of a stream without an end, and a false answer costs the rows that it
//! takes to converge again.

use crate::disk::clock;
use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::judge::evidence::{BLOCKS_MIN, CONFIDENCE, Evidence};
use crate::judge::progress::{Folding, LayerProgress, LayerSummary, SiteProgress, SolvePoint};
use crate::weights::site_layers::SiteLayers;

use qera_core::statistics::student_t_quantile;

/// The confidence level of the limits that re-open a site.
const DRIFT_CONFIDENCE: f64 = 0.99;

/// How a solve point changes which rows of a site are folded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum FoldingChange {
    /// The site goes on as before.
    None,
    /// The site leaves rows out from here on.
    Closed,
    /// The site folds all rows again. Each layer that drifted is named by its place in the site.
    Reopened(Vec<(usize, Drift)>),
}

/// What new rows showed about a layer that had converged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Drift {
    /// The error, relative to no correction, was `before` when the site was closed and is `now`.
    Error {
        /// q_0, the relative error when the site was closed.
        before: f64,
        /// q, the relative error on the new rows.
        now: f64,
    },
    /// The latest solve gained at least so much.
    Gain(f64),
}

impl SiteProgress {
    /// Whether the site leaves rows out.
    #[must_use]
    pub(crate) fn is_closed(&self) -> bool {
        self.folding == Folding::Closed
    }

    /// Whether the evidence of the next solve point can close the site or re-open it.
    #[must_use]
    pub(crate) fn folding_may_change(&self, tolerance: f64) -> bool {
        let nearly = |layer: &LayerProgress| {
            let latest = layer.evidence.last();
            layer.insensitive_to_rows || latest.is_some_and(|evidence| evidence.below(tolerance))
        };
        self.is_closed() || self.layers.iter().all(nearly)
    }

    /// Closes or re-opens the site by the evidence of its layers.
    pub(crate) fn update_folding(&mut self, tolerance: f64) -> FoldingChange {
        if self.is_closed() {
            let layers = self.layers.iter().enumerate();
            let drifts: Vec<_> = layers
                .filter_map(|(member, layer)| Some((member, layer.drift(tolerance)?)))
                .collect();
            if drifts.is_empty() {
                return FoldingChange::None;
            }
            self.layers.iter_mut().for_each(LayerProgress::begin_anew);
            self.folding = Folding::Reopened;
            return FoldingChange::Reopened(drifts);
        }
        let tested = |layer: &LayerProgress| {
            let latest = layer.evidence.last();
            latest.is_some_and(|evidence| evidence.blocks >= BLOCKS_MIN)
        };
        let enough = |layer: &LayerProgress| layer.converged(tolerance) && tested(layer);
        if !self.layers.iter().all(enough) {
            return FoldingChange::None;
        }
        for layer in &mut self.layers {
            layer.reference = layer.evidence.last().copied();
        }
        self.folding = Folding::Closed;
        FoldingChange::Closed
    }

    /// Opens the site again in a run that leaves no rows out; its evidence is kept.
    pub(crate) fn open(&mut self) {
        self.folding = Folding::Open;
        for layer in &mut self.layers {
            layer.reference = None;
        }
    }

    /// Summaries of the layers' progress, for status and log.
    #[must_use]
    pub(crate) fn summaries(&self, tolerance: f64) -> Vec<LayerSummary> {
        let of_layer = |layer: &LayerProgress| LayerSummary {
            evidence: layer.evidence.last().copied(),
            converged: layer.converged(tolerance),
            folding: self.folding,
            rows_skipped: 0,
            next_point: self.next_point,
        };
        self.layers.iter().map(of_layer).collect()
    }
}

impl LayerProgress {
    /// The drift that the latest evidence shows against the evidence of closing; `None` for no
    /// drift.
    fn drift(&self, tolerance: f64) -> Option<Drift> {
        let (reference, latest) = (self.reference?, self.evidence.last()?);
        // Where rows cannot change the correction, more of them cannot help.
        if self.insensitive_to_rows || latest.blocks < BLOCKS_MIN {
            return None;
        }
        let (before, now) = (reference.relative(), latest.relative());
        let half_width = latest
            .drift_half_width()?
            .hypot((1.0 + tolerance) * reference.drift_half_width()?);
        if now - (1.0 + tolerance) * before > half_width {
            return Some(Drift::Error { before, now });
        }
        let gain_lower = latest.gain_lower()?;
        (gain_lower > tolerance).then_some(Drift::Gain(gain_lower))
    }

    /// Drops the evidence of the rows before the drift, which does not count any more.
    fn begin_anew(&mut self) {
        self.evidence.clear();
        self.reference = None;
        self.corrections.truncate(1);
        self.insensitive_to_rows = false;
        self.solve = None;
    }
}

impl Evidence {
    /// The error that the correction leaves, relative to no correction.
    fn relative(&self) -> f64 {
        if self.error_without > 0.0 {
            self.error / self.error_without
        } else {
            0.0
        }
    }

    /// The half-width of the relative error at the confidence level of drifts.
    fn drift_half_width(&self) -> Option<f64> {
        Some(self.relative_half_width? * self.widening())
    }

    /// The lower limit of the gain at the confidence level of drifts.
    fn gain_lower(&self) -> Option<f64> {
        let gain = self.gain?;
        Some(gain - (self.gain_upper? - gain) * self.widening())
    }

    /// The factor by which intervals are wider at the level of drifts than at 95 %.
    fn widening(&self) -> f64 {
        let degrees = self.blocks.saturating_sub(1) as f64;
        let quantile = |confidence: f64| student_t_quantile(0.5 + confidence / 2.0, degrees);
        quantile(DRIFT_CONFIDENCE) / quantile(CONFIDENCE)
    }
}

/// Runs a solve point of a site whose R has not changed: corrections are scored, and none is
/// solved.
///
/// # Errors
/// [`Fatal`] naming the layer: a NaN or infinite weight.
pub(crate) fn score_site(
    layers: &SiteLayers<'_>,
    seen: u64,
    point: SolvePoint<'_>,
) -> Result<(), Fatal> {
    if point.newer.is_empty() {
        return Ok(());
    }
    for (member, progress) in point.progress.layers.iter_mut().enumerate() {
        let values = layers.error(member)?;
        let begun = clock::now();
        let error = ColumnMajor::new(&values, layers.site.in_features);
        progress.test(seen, point.newer, error);
        *point.scoring += clock::since(begun);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::factors::WrittenCorrection;

    const TOLERANCE: f64 = 0.05;

    fn evidence(blocks: u64, error: f64, half_width: f64, gain: f64) -> Evidence {
        Evidence {
            rows: 1,
            rows_tested: 8 * blocks,
            blocks,
            error,
            half_width: None,
            error_without: 2.0,
            relative_half_width: Some(half_width),
            gain: Some(gain),
            gain_upper: Some(gain + 0.001),
        }
    }

    /// One layer, half of its error left, about to be closed.
    fn converged() -> SiteProgress {
        let mut progress = SiteProgress::new(64, 1);
        progress.layers[0].evidence = vec![evidence(20, 1.0, 0.01, 0.0); 2];
        progress.layers[0].corrections = vec![WrittenCorrection::default(); 2];
        progress
    }

    fn closed() -> SiteProgress {
        let mut progress = converged();
        assert!(progress.folding_may_change(TOLERANCE));
        assert_eq!(progress.update_folding(TOLERANCE), FoldingChange::Closed);
        progress
    }

    /// What becomes of a closed site with this evidence.
    fn after(latest: Evidence) -> (FoldingChange, SiteProgress) {
        let mut progress = closed();
        progress.layers[0].evidence.push(latest);
        (progress.update_folding(TOLERANCE), progress)
    }

    #[test]
    fn a_site_is_closed_when_every_layer_has_converged() {
        let mut progress = converged();
        progress.layers.push(LayerProgress::default());
        assert!(!progress.folding_may_change(TOLERANCE));
        assert_eq!(progress.update_folding(TOLERANCE), FoldingChange::None);
        // Nothing is known yet of the error that a layer leaves which is insensitive to rows.
        progress.layers[1].insensitive_to_rows = true;
        assert!(progress.folding_may_change(TOLERANCE));
        assert_eq!(progress.update_folding(TOLERANCE), FoldingChange::None);
        progress.layers[1].evidence = vec![evidence(8, 2.0, 0.0, 0.0)];
        assert_eq!(progress.update_folding(TOLERANCE), FoldingChange::Closed);
        assert!(progress.is_closed() && progress.folding_may_change(TOLERANCE));
        let summaries = progress.summaries(TOLERANCE);
        assert!(summaries.iter().all(|s| s.folding == Folding::Closed));
        progress.open();
        assert!(!progress.is_closed() && progress.layers[0].converged(TOLERANCE));
    }

    /// q_0 = 0.5 +- 0.01 at 95 %, 20 blocks: +- 0.0137 at 99 %, and with as much of the new rows +-
    /// 0.0198 together.
    #[test]
    fn drift_is_a_rise_beyond_tolerance_and_doubt() {
        // Above 1.05 q_0 by 0.019, and by 0.021.
        let (change, progress) = after(evidence(20, 2.0 * 0.544, 0.01, 0.0));
        assert_eq!(change, FoldingChange::None);
        assert!(progress.layers[0].converged(TOLERANCE));
        let (change, progress) = after(evidence(20, 2.0 * 0.546, 0.01, 0.0));
        let FoldingChange::Reopened(drifts) = change else {
            panic!("{change:?}");
        };
        let [(0, Drift::Error { before, now })] = drifts[..] else {
            panic!("{drifts:?}");
        };
        assert!((before - 0.5).abs() < 1e-12 && (now - 0.546).abs() < 1e-12);
        // It converges anew, on new evidence.
        let layer = &progress.layers[0];
        assert!(layer.evidence.is_empty() && layer.corrections.len() == 1);
        assert!(!layer.converged(TOLERANCE) && progress.folding == Folding::Reopened);
        assert_eq!(progress.summaries(TOLERANCE)[0].folding, Folding::Reopened);
        // Seven blocks say nothing.
        assert_eq!(after(evidence(7, 2.0, 0.0, 0.0)).0, FoldingChange::None);
    }

    #[test]
    fn a_gain_that_is_sure_re_opens() {
        let (change, _) = after(evidence(20, 1.0, 0.01, 0.0515));
        let FoldingChange::Reopened(drifts) = change else {
            panic!("{change:?}");
        };
        assert!(matches!(drifts[..], [(0, Drift::Gain(lower))] if lower > 0.05 && lower < 0.0515));
        assert_eq!(
            after(evidence(20, 1.0, 0.01, 0.0512)).0,
            FoldingChange::None
        );
    }

    /// Methods without statistics cannot follow a drift, and an E that is zero knows none.
    #[test]
    fn what_is_settled_does_not_drift() {
        let mut progress = closed();
        progress.layers[0].insensitive_to_rows = true;
        progress.layers[0]
            .evidence
            .push(evidence(20, 2.0, 0.0, 0.0));
        assert_eq!(progress.update_folding(TOLERANCE), FoldingChange::None);
    }
}
