//! What a run will do with the model: which class serves it, what it leaves as it is.

use serde::Serialize;

use crate::publish::packed_base::layout::{PackedFigures, PackedLayout, WholeLayer};
use crate::settings::memory_budget::format_bytes;
use crate::settings::publish::{BaseForm, PublishSettings};
use crate::weights::Weights;
use crate::weights::passed_over::{PassedOverGroup, grouped};

/// The model.
#[derive(Debug, Serialize)]
pub(crate) struct ModelPlan {
    /// Its listed architectures; null where none is listed, and `qera.shares` and `qera.linears`
    /// say everything.
    pub(crate) architecture: Option<String>,
    /// Class of Transformers whose names the adapter will have.
    pub(crate) class: String,
    /// Tensors that are not corrected and might be linear maps.
    pub(crate) passed_over: Vec<PassedOverGroup>,
    /// What `--emit-base=compressed-tensors` will write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) packed_base: Option<PackedBasePlan>,
}

/// A packed base.
#[derive(Debug, Serialize)]
pub(crate) struct PackedBasePlan {
    /// Why there will be none; the run is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// What its files take.
    #[serde(flatten)]
    pub(crate) figures: Option<PackedFigures>,
    /// Selected layers whose W~ will stand there as numbers.
    pub(crate) whole: Vec<WholeLayer>,
}

impl PackedBasePlan {
    fn new(weights: &Weights) -> Self {
        match PackedLayout::new(weights) {
            Ok(layout) => Self {
                refused: None,
                figures: Some(layout.figures(weights)),
                whole: layout.whole,
            },
            Err(refused) => Self {
                refused: Some(refused.to_string()),
                figures: None,
                whole: Vec::new(),
            },
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .refused
            .iter()
            .map(|r| format!("refused: {r}"))
            .collect();
        if let Some(PackedFigures {
            layers,
            bits_per_weight,
            bits_per_parameter,
            bytes,
        }) = self.figures
        {
            lines.push(format!(
                "packed base: {layers} layers, {bits_per_weight:.2} bits a weight; {} of files, {bits_per_parameter:.2} bits a parameter",
                format_bytes(bytes)
            ));
        }
        let whole = self.whole.iter();
        lines.extend(whole.map(|of| format!("not packed: {}: {}", of.layer, of.reason)));
        lines
    }
}

impl ModelPlan {
    /// Of these weights.
    #[must_use]
    pub(crate) fn new(weights: &Weights, publish: &PublishSettings) -> Self {
        let packs = publish.writes(BaseForm::CompressedTensors);
        Self {
            packed_base: packs.then(|| PackedBasePlan::new(weights)),
            architecture: weights.described(),
            class: weights.serving().class.clone(),
            passed_over: grouped(weights.passed_over(), weights.parameters()),
        }
    }

    /// As a person reads it.
    #[must_use]
    pub(crate) fn lines(&self) -> Vec<String> {
        let known = match &self.architecture {
            Some(architecture) => format!("listed as {architecture}"),
            None => "not listed: what shares an input is what qera.shares says".into(),
        };
        let mut lines = vec![format!("model: {known}; served by {}", self.class)];
        let passed_over = self.passed_over.iter();
        lines.extend(passed_over.map(|group| format!("not corrected: {group}")));
        lines.extend(self.packed_base.iter().flat_map(PackedBasePlan::lines));
        lines
    }
}
