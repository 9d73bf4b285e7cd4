//! The layers of a generation: every selected one, with what became of it.

use crate::host::factor_type::FactorType;
use crate::judge::progress::LayerSummary;
use crate::settings::Settings;
use crate::solve::solution::{LayerOutcome, LayerSolution};
use crate::weights::Weights;
use crate::weights::layers::Layer;

/// The layers as they are published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishedLayers<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The layers.
    pub(crate) weights: &'a Weights,
    /// What became of them, by layer.
    pub(crate) outcomes: &'a [LayerOutcome<'a>],
    /// How far they are, by layer.
    pub(crate) progress: &'a [LayerSummary],
}

/// A layer of the adapter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdapterLayer<'a> {
    /// The layer.
    pub(crate) layer: &'a Layer,
    /// Its correction.
    pub(crate) solution: &'a LayerSolution,
}

impl PublishedLayers<'_> {
    /// The adapter's rank: the largest that is used, at least 1, because no loader accepts 0.
    #[must_use]
    pub(crate) fn rank(&self) -> usize {
        let solutions = self
            .outcomes
            .iter()
            .filter_map(|outcome| outcome.solution());
        solutions
            .map(|s| s.rank_used)
            .max()
            .unwrap_or_default()
            .max(1)
    }

    /// The layers that the adapter has: those that were solved, whatever came of it. What no row fed
    /// is quantized without correction, and what waits for its first solve is not yet corrected.
    pub(crate) fn solved(&self) -> impl Iterator<Item = AdapterLayer<'_>> {
        let outcomes = self.weights.layers().iter().zip(self.outcomes);
        outcomes.filter_map(|(layer, outcome)| {
            let solution = outcome.solution()?;
            Some(AdapterLayer { layer, solution })
        })
    }

    /// Layers with a correction that does something.
    #[must_use]
    pub(crate) fn corrected(&self) -> usize {
        let corrected = |outcome: &&LayerOutcome<'_>| outcome.is_corrected();
        self.outcomes.iter().filter(corrected).count()
    }

    /// Type that A and B of a layer are written in.
    #[must_use]
    pub(crate) fn dtype(&self, layer: usize) -> FactorType {
        let solution = self.outcomes[layer].solution();
        solution.map_or(self.settings.solve.factor_dtype, |s| s.factors.dtype)
    }
}
