//! The layers of a generation: every selected layer, with its outcome.

use crate::host::factor_type::FactorType;
use crate::judge::progress::LayerSummary;
use crate::settings::Settings;
use crate::settings::publish::AdapterForm;
use crate::solve::solution::{LayerOutcome, LayerSolution};
use crate::weights::Weights;
use crate::weights::layers::Layer;

/// The selected layers of a generation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishedLayers<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The layers, with W and W~.
    pub(crate) weights: &'a Weights,
    /// The outcome of each layer.
    pub(crate) outcomes: &'a [LayerOutcome<'a>],
    /// The progress of each layer.
    pub(crate) progress: &'a [LayerSummary],
}

/// A layer that is in the adapter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdapterLayer<'a> {
    /// The layer's index among the selected layers.
    pub(crate) index: usize,
    /// The layer.
    pub(crate) layer: &'a Layer,
    /// The layer's correction.
    pub(crate) solution: &'a LayerSolution,
}

/// A layer's factors, padded with zeros to a rank.
#[derive(Debug)]
pub(crate) struct PaddedFactors {
    /// A^T, [rank, in_features].
    pub(crate) lora_a: Vec<f32>,
    /// B^T, [out_features, rank].
    pub(crate) lora_b: Vec<f32>,
}

impl AdapterLayer<'_> {
    /// The layer's factors, padded to the adapter's rank.
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
    /// The adapter's rank: the largest rank used by a layer, and at least 1, because no loader
    /// accepts 0.
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

    /// The rank that a layer is written with in forms where layers may differ: the adapter's rank,
    /// or with `--ragged` the layer's own.
    #[must_use]
    pub(crate) fn rank_of(&self, layer: &AdapterLayer<'_>) -> usize {
        match self.settings.publish.ragged {
            true => layer.solution.rank_used.max(1),
            false => self.rank(),
        }
    }

    /// The largest rank in which any form has a layer; mlx-lm has one rank for all.
    #[must_use]
    pub(crate) fn largest_rank_of(&self, layer: &AdapterLayer<'_>) -> usize {
        match self.settings.publish.formats.contains(&AdapterForm::Mlx) {
            true => self.rank(),
            false => self.rank_of(layer),
        }
    }

    /// The layers that are in the adapter: those that were solved, whatever the outcome. A layer
    /// without rows is quantized but not corrected, and a layer that waits for its first solve is
    /// not corrected yet.
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

    /// The type in which A and B of a layer are written.
    #[must_use]
    pub(crate) fn dtype(&self, layer: usize) -> FactorType {
        let solution = self.outcomes[layer].solution();
        solution.map_or(self.settings.solve.factor_dtype, |s| s.factors.dtype)
    }
}
