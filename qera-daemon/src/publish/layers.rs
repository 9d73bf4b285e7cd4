//! The layers of a generation: every selected one, with what became of it.

use crate::host::factor_type::FactorType;
use crate::judge::progress::LayerSummary;
use crate::settings::Settings;
use crate::settings::publish::AdapterForm;
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
    /// Its place among the selected layers.
    pub(crate) index: usize,
    /// The layer.
    pub(crate) layer: &'a Layer,
    /// Its correction.
    pub(crate) solution: &'a LayerSolution,
}

/// The factors of a layer with zeros up to a rank.
#[derive(Debug)]
pub(crate) struct PaddedFactors {
    /// A^T, [rank, in_features].
    pub(crate) lora_a: Vec<f32>,
    /// B^T, [out_features, rank].
    pub(crate) lora_b: Vec<f32>,
}

impl AdapterLayer<'_> {
    /// Its factors, as an adapter of this rank has them.
    #[must_use]
    pub(crate) fn padded(&self, rank: usize) -> PaddedFactors {
        let (layer, factors) = (self.layer, &self.solution.factors);
        let mut lora_a = vec![0.0; rank * layer.in_features];
        let mut lora_b = vec![0.0; layer.out_features * rank];
        lora_a[..factors.lora_a.len()].copy_from_slice(&factors.lora_a);
        let rows = factors.lora_b.chunks(self.solution.rank_used.max(1));
        for (padded, row) in lora_b.chunks_mut(rank).zip(rows) {
            padded[..row.len()].copy_from_slice(row);
        }
        PaddedFactors { lora_a, lora_b }
    }
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

    /// The rank that a layer is written with where the form lets layers differ: that of all, or
    /// with `--ragged` the one that it uses.
    #[must_use]
    pub(crate) fn rank_of(&self, layer: &AdapterLayer<'_>) -> usize {
        match self.settings.publish.ragged {
            true => layer.solution.rank_used.max(1),
            false => self.rank(),
        }
    }

    /// The largest rank that a form has of a layer: mlx-lm knows one for all.
    #[must_use]
    pub(crate) fn largest_rank_of(&self, layer: &AdapterLayer<'_>) -> usize {
        match self.settings.publish.formats.contains(&AdapterForm::Mlx) {
            true => self.rank(),
            false => self.rank_of(layer),
        }
    }

    /// The layers that the adapter has: those that were solved, whatever came of it. What no row
    /// fed is quantized without correction, and what waits for its first solve is not yet
    /// corrected.
    pub(crate) fn solved(&self) -> impl Iterator<Item = AdapterLayer<'_>> {
        let outcomes = self.weights.layers().iter().zip(self.outcomes);
        outcomes
            .enumerate()
            .filter_map(|(index, (layer, outcome))| {
                let solution = outcome.solution()?;
                Some(AdapterLayer {
                    index,
                    layer,
                    solution,
                })
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
