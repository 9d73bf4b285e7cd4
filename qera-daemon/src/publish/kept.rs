//! Keeps a layer's correction from the current generation, where the rows of today do not let the
//! layer be solved: it is as good as before for the same W and W~.

use serde::Deserialize;
use serde_json::Value;

use crate::disk::read;
use crate::host::factors::Rounded;
use crate::judge::held_out::{Choice, ChoiceOrigin};
use crate::judge::scores::HeldOut;
use crate::publish::asked_dtype::not_as_asked;
use crate::publish::current::current;
use crate::publish::target::Target;
use crate::publish::window_error::WindowErrorRecord;
use crate::publish::written::{FormNames, WrittenForm};
use crate::settings::publish::AdapterForm;
use crate::solve::solution::{LayerSolution, SketchedError};
use crate::weights::gguf::layer_names::GgufLayerPlace;

/// A layer as the current manifest has it.
#[derive(Deserialize)]
struct KeptLayer {
    name: String,
    served_as: String,
    #[serde(default)]
    gguf: Option<GgufLayerPlace>,
    #[serde(default)]
    mlx: Option<String>,
    in_features: usize,
    out_features: usize,
    status: String,
    rank_used: usize,
    rows: u64,
    shrinkage: Option<f64>,
    shrinkage_origin: Option<ChoiceOrigin>,
    output_power: Option<f64>,
    error: Option<KeptErrors>,
    #[serde(default)]
    window_error: Option<WindowErrorRecord>,
    #[serde(default)]
    sketch: Option<SketchedError>,
    held_out_error: Option<HeldOut>,
    spectrum: Vec<f64>,
}

/// The layer's errors, and the power that they are relative to.
#[derive(Deserialize)]
struct KeptErrors {
    #[serde(default)]
    power: Option<f64>,
    without: f64,
    with: f64,
    rounded: f64,
    rounded_bf16: Option<f64>,
    uncertainty: Option<f64>,
    #[serde(default)]
    in_asked_dtype: Option<Value>,
}

#[derive(Deserialize)]
struct KeptLayers {
    layers: Vec<KeptLayer>,
}

impl Target<'_> {
    /// The correction of a layer in the current generation, if that corrects the same W~ of the
    /// same weights. `None` where it cannot be read.
    #[must_use]
    pub(crate) fn last_correction(&self, layer: usize) -> Option<LayerSolution> {
        if self.damage().is_some() {
            return None;
        }
        let (current, own) = (current(&self.out).ok()??, self.fingerprints());
        let same = current.fingerprints.checkpoint == own.checkpoint
            && current.fingerprints.quantized == own.quantized
            && current.fingerprints.rounded == own.rounded
            && current.fingerprints.names == own.names
            && current.settings.format == self.weights().format();
        if !same {
            return None;
        }
        let folder = self.out.path.join("current");
        let manifest = read(&folder.join("qera_manifest.json")).ok()?;
        let KeptLayers { layers } = serde_json::from_slice(&manifest).ok()?;
        let name = &self.weights().layers().get(layer)?.name;
        let kept = layers.into_iter().find(|of| of.name == *name)?;
        // Every form has the same numbers. One that quantizes them is the last resort.
        let mut forms = [AdapterForm::Peft, AdapterForm::Mlx, AdapterForm::Gguf].into_iter();
        let form = forms.find(|form| current.forms.contains(form))?;
        let mut kept = kept.solution(layer, &WrittenForm::open(&folder, form).ok()?)?;
        kept.factors.dtype = self.forms.type_of(kept.factors.dtype);
        Some(kept)
    }
}

impl KeptErrors {
    fn of_window(of: WindowErrorRecord) -> Self {
        Self {
            power: Some(of.power),
            without: of.without,
            with: of.with,
            rounded: of.rounded,
            rounded_bf16: of.rounded_bf16,
            uncertainty: None,
            in_asked_dtype: of.in_asked_dtype,
        }
    }
}

impl KeptLayer {
    /// The layer's solution; `None` where the layer was not solved, or its factors are missing.
    fn solution(self, layer: usize, adapter: &WrittenForm) -> Option<LayerSolution> {
        if self.status != "solved" || self.rank_used == 0 {
            return None;
        }
        let names = FormNames {
            served_as: &self.served_as,
            gguf: self.gguf.as_ref(),
            mlx: self.mlx.as_deref(),
        };
        let pair = adapter.pair(names).ok()?;
        let (m, n, rank) = (self.in_features, self.out_features, self.rank_used);
        if pair.in_features != m || pair.out_features != n || rank > pair.rank {
            return None;
        }
        let of_rank = |row: &[f32]| row[..rank].to_vec();
        let of_window = self.window_error.map(KeptErrors::of_window);
        let error = self.error.or(of_window)?;
        let output_power = self.output_power.or(error.power)?;
        Some(LayerSolution {
            layer,
            rows: self.rows,
            rank_used: rank,
            output_power,
            error_without: error.without,
            error_with: error.with,
            error_bf16: error.rounded_bf16.unwrap_or(f64::INFINITY),
            doubt: error.uncertainty.unwrap_or_default() * error.with,
            factors: Rounded {
                dtype: pair.dtype?,
                lora_a: pair.lora_a[..rank * m].to_vec(),
                lora_b: pair.lora_b.chunks(pair.rank).flat_map(of_rank).collect(),
                error: error.rounded,
            },
            not_as_asked: error.in_asked_dtype.as_ref().map(not_as_asked),
            spectrum: self.spectrum,
            choice: self
                .shrinkage
                .zip(self.shrinkage_origin)
                .map(|(shrinkage, origin)| Choice { shrinkage, origin }),
            held_out: self.held_out_error,
            sketched: self.sketch,
        })
    }
}
