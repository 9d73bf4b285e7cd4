//! What a run will do with the model: which class serves it, and what stays as it is.

use serde::Serialize;

use crate::observe::bits::BitsPerWeight;
use crate::publish::bits::planned_bits;
use crate::publish::gguf_base::layout::{GgufFigures, GgufLayout};
use crate::publish::packed_base::layout::{PackedFigures, PackedLayout, WholeLayer};
use crate::settings::Settings;
use crate::settings::memory_budget::format_bytes;
use crate::settings::publish::BaseForm;
use crate::weights::Weights;
use crate::weights::passed_over::{PassedOverGroup, grouped};

/// The plan for the model.
#[derive(Debug, Serialize)]
pub(crate) struct ModelPlan {
    /// The model's listed architectures; null where none is listed, and `qera.shares` and
    /// `qera.linears` say everything.
    pub(crate) architecture: Option<String>,
    /// Class of Transformers whose names the adapter will have.
    pub(crate) class: String,
    /// Tensors that are not corrected and might be linear maps.
    pub(crate) passed_over: Vec<PassedOverGroup>,
    /// What `--emit-base=compressed-tensors` will write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) packed_base: Option<PackedBasePlan>,
    /// What `--emit-base=gguf` will write, as far as grid and widths decide it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gguf_base: Option<GgufBasePlan>,
    /// What base and adapter will cost, with every layer corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bits_per_weight: Option<BitsPerWeight>,
}

/// A GGUF base that will be written.
#[derive(Debug, Serialize)]
pub(crate) struct GgufBasePlan {
    /// Why it cannot be written, so that the run is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// The sizes of the file.
    #[serde(flatten)]
    pub(crate) figures: Option<GgufFigures>,
    /// Selected layers whose W~ will be stored as numbers.
    pub(crate) whole: Vec<WholeLayer>,
}

impl GgufBasePlan {
    fn new(weights: &Weights) -> Self {
        let layout = GgufLayout::new(weights);
        let figures = layout.as_ref().map(|layout| layout.figures(weights));
        Self {
            refused: layout.as_ref().err().map(ToString::to_string),
            figures: figures.ok().and_then(Result::ok),
            whole: layout.map_or_else(|_| Vec::new(), |layout| layout.whole(weights)),
        }
    }

    fn lines(&self) -> Vec<String> {
        let refused = self.refused.iter();
        let mut lines: Vec<String> = refused.map(|r| format!("refused: {r}")).collect();
        if let Some(GgufFigures {
            types,
            bits_per_weight,
            bits_per_parameter,
            bytes,
        }) = &self.figures
        {
            let types = types.iter();
            let types = types.map(|(name, layers)| format!("{layers} layers in {name}"));
            lines.push(format!(
                "base as GGUF: {}, {bits_per_weight:.2} bits a weight; {} of tensors, {bits_per_parameter:.2} bits a parameter",
                types.collect::<Vec<_>>().join(", "),
                format_bytes(*bytes)
            ));
        }
        let whole = self.whole.iter();
        lines.extend(whole.map(|of| format!("not in blocks: {}: {}", of.layer, of.reason)));
        lines
    }
}

/// A packed base that will be written.
#[derive(Debug, Serialize)]
pub(crate) struct PackedBasePlan {
    /// Why it cannot be written, so that the run is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// The sizes of its files.
    #[serde(flatten)]
    pub(crate) figures: Option<PackedFigures>,
    /// Selected layers whose W~ will be stored as numbers.
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
    /// The plan for these weights.
    #[must_use]
    pub(crate) fn new(weights: &Weights, settings: &Settings) -> Self {
        let writes = |form| settings.publish.writes(form);
        let packs = writes(BaseForm::CompressedTensors);
        Self {
            gguf_base: writes(BaseForm::Gguf).then(|| GgufBasePlan::new(weights)),
            bits_per_weight: planned_bits(weights, settings),
            packed_base: packs.then(|| PackedBasePlan::new(weights)),
            architecture: weights.described(),
            class: weights.serving().class.clone(),
            passed_over: grouped(weights.passed_over(), weights.parameters()),
        }
    }

    /// The lines for a person.
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
        lines.extend(self.gguf_base.iter().flat_map(GgufBasePlan::lines));
        lines.extend(self.bits_per_weight.iter().map(ToString::to_string));
        lines
    }
}
