//! `qera_manifest.json`: what was solved, from what, and how well it does.

use std::collections::BTreeSet;

use qera_core::reconstruct::Method;
use serde::{Deserialize, Serialize};

use crate::calibrate::imatrix_files::ImatrixRecord;
use crate::host::kernels::names::KernelNames;
use crate::judge::evidence::Evidence;
use crate::judge::held_out::ChoiceOrigin;
use crate::judge::progress::Folding;
use crate::judge::scores::HeldOut;
use crate::observe::bits::BitsPerWeight;
use crate::publish::asked_dtype::in_asked_dtype;
use crate::publish::bases::BaseRecords;
use crate::publish::bits::bits_of;
use crate::publish::forms::AdapterForms;
use crate::publish::gguf_base::record::GgufRecord;
use crate::publish::layer_rounding::LayerRounding;
use crate::publish::layers::PublishedLayers;
use crate::publish::manifest_seal::FIRST_SEALED;
use crate::publish::packed_base::record::PackedRecord;
use crate::publish::ratio::ratio;
use crate::publish::rounded_base::RoundingChoice;
use crate::publish::window_error::WindowErrorRecord;
use crate::settings::Settings;
use crate::settings::device::DeviceRecord;
use crate::settings::name_map::NameMap;
use crate::settings::publish::AdapterForm;
use crate::settings::solve::Shrinkage;
use crate::settings::statistics::Statistics;
use crate::settings::weight_format::WeightFormat;
use crate::solve::solution::{LayerSolution, SketchedError};
use crate::weights::Weights;
use crate::weights::gguf::layer_names::GgufLayerPlace;
use crate::weights::given::given_layers::GivenLayer;
use crate::weights::given::read_tensor::ReadTensor;
use crate::weights::passed_over::{PassedOverGroup, grouped};

/// The whole manifest.
#[derive(Debug, Serialize)]
pub(crate) struct Manifest {
    /// Version of this file's layout.
    pub(crate) manifest_version: u32,
    /// Version of qera.
    pub(crate) qera_version: &'static str,
    /// Fingerprints of what the correction belongs to.
    pub(crate) fingerprints: Fingerprints,
    /// Settings that decide the bytes of the adapter.
    pub(crate) settings: SettingsRecord,
    /// The file or folder that W~ is read from; absent where W~ is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quantized: Option<QuantizedFile>,
    /// The forms in which the adapter is written.
    pub(crate) forms: BTreeSet<AdapterForm>,
    /// Whether each layer has a rank of its own, in forms that allow it.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub(crate) ragged: bool,
    /// What is packed in `OUT/base-compressed-tensors`; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) packed_base: Option<PackedRecord>,
    /// The record of `OUT/base-gguf`; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gguf_base: Option<GgufRecord>,
    /// The bits a weight of base and adapter; absent where no layer is corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bits_per_weight: Option<BitsPerWeight>,
    /// The kernels that multiplied rows of each type on the CPU in the run that published.
    pub(crate) kernels: KernelNames,
    /// The device that computed a part of it; absent where nothing was computed on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<DeviceRecord>,
    /// Where the rows came from.
    pub(crate) inputs: Inputs,
    /// The class whose names the adapter has.
    pub(crate) serving: ServingRecord,
    /// Every selected layer.
    pub(crate) layers: Vec<LayerRecord>,
    /// Tensors that are not corrected and might be linear maps; names that differ in numbers only
    /// are one entry.
    pub(crate) passed_over: Vec<PassedOverGroup>,
}

/// What the model is called on its three sides: when recorded, in the checkpoint, when served.
#[derive(Debug, Serialize)]
pub(crate) struct ServingRecord {
    /// Class of Transformers whose names the adapter has.
    pub(crate) class: String,
    /// PEFT's word for the model's task; null where PEFT has none.
    pub(crate) task_type: Option<String>,
    /// Recorded names to the checkpoint's, as `--map` takes it; empty where they are the same.
    pub(crate) map: Vec<String>,
    /// Modules of the checkpoint that the class has not, with all beneath them.
    pub(crate) outside: BTreeSet<String>,
}

/// The file or folder that W~ is read from.
#[derive(Debug, Serialize)]
pub(crate) struct QuantizedFile {
    /// The path from the root on.
    pub(crate) path: String,
    /// The number of its weight files; for a GGUF its parts.
    pub(crate) files: usize,
    /// The GGUF's `general.architecture`; absent for a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) architecture: Option<&'static str>,
    /// The folder's quant_method, which says how it is packed; absent for a GGUF.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<&'static str>,
}

/// BLAKE3 fingerprints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprints {
    /// Name, type, shape and bytes of the selected weights.
    pub(crate) checkpoint: String,
    /// The checkpoint as a whole, whichever layers are selected: all tensors, and some bytes of
    /// each.
    #[serde(default)]
    pub(crate) model: Option<String>,
    /// The `settings` object below.
    pub(crate) settings: String,
    /// The class that serves the model, and what it and the shards call each layer.
    #[serde(default)]
    pub(crate) names: Option<String>,
    /// `OUT/base`, when there is one.
    pub(crate) base: Option<String>,
    /// Fingerprint of a W~ that was rounded by what rows showed: its codes and scales, layer by
    /// layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rounded: Option<String>,
    /// That of what --quantized names, over name, type, shape and bytes of each tensor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quantized: Option<String>,
    /// The files of `--imatrix`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) imatrix: Option<String>,
}

/// Settings that decide the bytes of the adapter.
#[derive(Debug, Serialize)]
pub(crate) struct SettingsRecord {
    /// Method name.
    pub(crate) method: &'static str,
    /// The format in which W~ is stored.
    #[serde(flatten)]
    pub(crate) format: WeightFormat,
    /// How W~ was rounded; absent for nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rounding: Option<RoundingChoice>,
    /// `sketch=L`, where output errors were sketched; absent else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) statistics: Option<String>,
    /// `auto` or a number.
    pub(crate) shrinkage: serde_json::Value,
    /// The dtype asked for A and B.
    pub(crate) dtype: String,
    /// The rank asked for each layer.
    pub(crate) ranks: Vec<usize>,
}

/// Where the rows came from.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Inputs {
    /// Shards folded.
    pub(crate) shards: usize,
    /// Shards without a row for a selected layer.
    pub(crate) empty: usize,
    /// Shards that were left unread because a signal ended the run.
    pub(crate) unread: usize,
    /// Shards set aside in this run.
    pub(crate) quarantined_shards: usize,
    /// The reasons of the first hundred of them.
    pub(crate) quarantined: Vec<String>,
    /// Whether the rows were recorded in the full-precision model, by the shards' metadata
    /// `qera.source` (`full-precision` or `quantized`); null where a shard does not say.
    pub(crate) full_precision_model: Option<bool>,
    /// Number of the journal's last shard that counted.
    pub(crate) journal_position: u64,
    /// A BLAKE3 chain over the contents of those shards, in their order.
    pub(crate) journal_digest: String,
    /// Whether every layer was solved cold from all of these shards, so that this is their last
    /// generation.
    pub(crate) drained: bool,
    /// The imatrix files that stand in for rows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) imatrix: Vec<ImatrixRecord>,
}

/// The record of one layer.
#[derive(Debug, Serialize)]
pub(crate) struct LayerRecord {
    /// Module path in the checkpoint.
    pub(crate) name: String,
    /// Module path in the shards.
    pub(crate) recorded_as: String,
    /// Module path in the class that serves it, and in the adapter.
    pub(crate) served_as: String,
    /// The layer's place in the GGUF adapter; absent where none is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gguf: Option<GgufLayerPlace>,
    /// The layer's name in mlx-lm; absent where its files are not written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mlx: Option<String>,
    /// Whether the checkpoint stores the weight [in_features, out_features].
    pub(crate) transposed: bool,
    /// Width of its input.
    pub(crate) in_features: usize,
    /// Width of its output.
    pub(crate) out_features: usize,
    /// The layer's status: whether it was solved.
    pub(crate) status: &'static str,
    /// Rank asked for.
    pub(crate) rank_asked: usize,
    /// Rank really used; the adapter pads it with zeros.
    pub(crate) rank_used: usize,
    /// Method name.
    pub(crate) method: &'static str,
    /// The grid (`mxint4/32`, say); where W~ was given, ggml's name of its type.
    pub(crate) quantizer: String,
    /// The tensor that W~ was read from; absent where W~ is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read: Option<ReadTensor>,
    /// How W~ was made; absent where all layers are rounded to nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rounding: Option<LayerRounding>,
    /// The shrinkage a, for QERA-exact.
    pub(crate) shrinkage: Option<f64>,
    /// Where the shrinkage comes from.
    pub(crate) shrinkage_origin: Option<ChoiceOrigin>,
    /// Number of rows that the statistics are the mean of; where an imatrix stands in, its count.
    pub(crate) rows: u64,
    /// `imatrix` where an imatrix stands in for rows; absent where rows were seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) statistic: Option<&'static str>,
    /// Rows of the site that were left out, because all of its layers had converged.
    pub(crate) rows_skipped: u64,
    /// dtype of A and B as written.
    pub(crate) dtype: String,
    /// tr(R W W^T): the output's power, to which errors are relative. Absent where only an imatrix
    /// is known, and where a sketch stood for R.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output_power: Option<f64>,
    /// The error on the rows seen; absent where an imatrix stands in for rows, or a sketch for R.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ErrorRecord>,
    /// The diagonal error, where an imatrix stands in for rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) diagonal_error: Option<DiagonalErrorRecord>,
    /// On the rows of the window, where a sketch stood for R.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window_error: Option<WindowErrorRecord>,
    /// What that sketch says of f.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sketch: Option<SketchedError>,
    /// The error on rows that the tested correction had not seen.
    pub(crate) held_out_error: Option<HeldOut>,
    /// Test-then-train: how corrections of the latest solve points did on newer rows.
    pub(crate) evidence: Option<Evidence>,
    /// Whether the layer has converged: more rows do not improve its correction any more.
    pub(crate) converged: bool,
    /// Whether the site folds all of its rows.
    pub(crate) folding: Folding,
    /// Eigenvalues of G that the correction captures, in the method's own metric (up to scale).
    pub(crate) spectrum: Vec<f64>,
}

/// The layer's error f = tr(R P P^T), the mean squared output error of a row, also relative to
/// `output_power`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ErrorRecord {
    /// The error without correction.
    pub(crate) without: f64,
    /// The error with the correction before its factors are rounded.
    pub(crate) with: f64,
    /// After rounding to the dtype written.
    pub(crate) rounded: f64,
    /// When what is written is rounded to bf16; null if that overflows.
    pub(crate) rounded_bf16: f64,
    /// The relative uncertainty of `with` that follows from R's; null below 1e-6.
    pub(crate) uncertainty: Option<f64>,
    /// The error in the asked dtype, where a wider one was written: a number, "overflow" or
    /// "no-whole-blocks".
    pub(crate) in_asked_dtype: Option<serde_json::Value>,
    /// `without` / `output_power`.
    pub(crate) relative_without: f64,
    /// `rounded` / `output_power`.
    pub(crate) relative_with: f64,
}

/// tr(D P P^T) with D = diag(E[x^2]) of an imatrix: what f would be if no two channels were
/// correlated. It is no error of the layer's output.
#[derive(Debug, Serialize)]
pub(crate) struct DiagonalErrorRecord {
    /// tr(D W W^T), to which the relative errors are.
    pub(crate) power: f64,
    /// The error without correction.
    pub(crate) without: f64,
    /// The error with the correction before its factors are rounded.
    pub(crate) with: f64,
    /// After rounding to the dtype written.
    pub(crate) rounded: f64,
    /// When what is written is rounded to bf16; null if that overflows.
    pub(crate) rounded_bf16: f64,
    /// `without` / `power`.
    pub(crate) relative_without: f64,
    /// `rounded` / `power`.
    pub(crate) relative_with: f64,
}

/// The parts of a manifest other than the layers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WrittenBeside<'a> {
    /// The forms of the adapter.
    pub(crate) forms: &'a AdapterForms,
    /// The records of the bases that are there.
    pub(crate) bases: BaseRecords<'a>,
}

impl Manifest {
    /// Collects the record of a generation.
    #[must_use]
    pub(crate) fn new(
        of: &PublishedLayers<'_>,
        inputs: Inputs,
        fingerprints: Fingerprints,
        written: WrittenBeside<'_>,
    ) -> Self {
        let PublishedLayers {
            settings, weights, ..
        } = *of;
        Self {
            manifest_version: FIRST_SEALED,
            qera_version: env!("CARGO_PKG_VERSION"),
            fingerprints,
            forms: written.forms.all.clone(),
            ragged: settings.publish.ragged,
            bits_per_weight: bits_of(of, written.bases),
            packed_base: written.bases.packed.cloned(),
            gguf_base: written.bases.gguf.cloned(),
            quantized: weights.given().map(|of| QuantizedFile {
                path: of.given.full_path().display().to_string(),
                files: of.given.files().count(),
                architecture: of.given.architecture(),
                method: of.given.method(),
            }),
            serving: ServingRecord::new(weights),
            passed_over: grouped(weights.passed_over(), weights.parameters()),
            layers: (0..weights.layers().len())
                .map(|layer| LayerRecord::new(of, layer, written.forms))
                .collect(),
            settings: SettingsRecord::new(settings, weights),
            kernels: KernelNames::of(settings.compute.kernel),
            device: settings.compute.device.record(),
            inputs,
        }
    }
}

impl Fingerprints {
    /// The fingerprints of these settings and weights, before a base is known; `checkpoint` is the
    /// checkpoint's fingerprint.
    #[must_use]
    pub(crate) fn new(settings: &Settings, weights: &Weights, checkpoint: String) -> Self {
        let record = SettingsRecord::new(settings, weights);
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        Self {
            checkpoint,
            model: Some(weights.identity().to_owned()),
            settings: format!("blake3:{}", blake3::hash(&bytes).to_hex()),
            names: Some(names_fingerprint(weights)),
            base: None,
            rounded: None,
            quantized: weights.given().map(|of| of.given.fingerprint.clone()),
            imatrix: None,
        }
    }
}

fn names_fingerprint(weights: &Weights) -> String {
    let mut hasher = blake3::Hasher::new();
    let serving = weights.serving();
    hasher.update(format!("{}\0{:?}\0", serving.class, serving.task_type).as_bytes());
    for layer in weights.layers() {
        let recorded = weights.recording().recorded_name(&layer.name);
        hasher.update(format!("{}\0{recorded}\0", layer.served_as).as_bytes());
    }
    format!("blake3:{}", hasher.finalize().to_hex())
}

impl ServingRecord {
    fn new(weights: &Weights) -> Self {
        let names = weights.recording().names.as_ref();
        let rules = names.into_iter().flat_map(NameMap::rules);
        Self {
            class: weights.serving().class.clone(),
            task_type: weights.serving().task_type.clone(),
            map: rules.map(ToString::to_string).collect(),
            outside: weights.modules_not_served(),
        }
    }
}

impl SettingsRecord {
    fn new(settings: &Settings, weights: &Weights) -> Self {
        Self {
            method: settings.solve.method.name(),
            format: weights.format(),
            rounding: RoundingChoice::new(&settings.rounding),
            statistics: match settings.solve.statistics {
                Some(of @ Statistics::Sketch { .. }) => Some(of.to_string()),
                _ => None,
            },
            shrinkage: match settings.solve.shrinkage {
                Shrinkage::Auto => "auto".into(),
                Shrinkage::Fixed(a) => a.into(),
            },
            dtype: settings.solve.factor_dtype.written_name(),
            ranks: weights.layers().iter().map(|l| l.rank_asked).collect(),
        }
    }
}

impl LayerRecord {
    fn new(of: &PublishedLayers<'_>, index: usize, forms: &AdapterForms) -> Self {
        let PublishedLayers {
            settings, weights, ..
        } = *of;
        let (layer, progress) = (&weights.layers()[index], of.progress[index]);
        let (outcome, solution) = (of.outcomes[index], of.outcomes[index].solution());
        let stand_in = outcome.stand_in();
        let (measured, sketched) = (|| outcome.measured(), outcome.sketched());
        let is_under_r = stand_in.is_none() && sketched.is_none();
        let choice = solution.and_then(|s| s.choice);
        let given = weights.given().map(|of| &of.layers[index]);
        Self {
            name: layer.name.clone(),
            recorded_as: weights.recording().recorded_name(&layer.name),
            served_as: layer.served_as.clone(),
            gguf: forms.gguf.as_ref().map(|of| of.layers[index].clone()),
            mlx: forms.mlx.as_ref().map(|of| of.layers[index].name.clone()),
            transposed: layer.transposed,
            in_features: layer.in_features,
            out_features: layer.out_features,
            status: outcome.name(),
            rank_asked: layer.rank_asked,
            rank_used: solution.map_or(0, |s| s.rank_used),
            method: match stand_in {
                Some(_) => Method::of_mean_squares().name(),
                None => settings.solve.method.name(),
            },
            quantizer: given
                .map_or_else(|| weights.format().to_string(), |of| of.tensor.stored_in()),
            read: given.map(GivenLayer::described),
            rounding: weights.rounding_of(index).map(LayerRounding::new),
            shrinkage: choice.map(|c| c.shrinkage),
            shrinkage_origin: choice.map(|c| c.origin),
            rows: solution.map_or(0, |s| s.rows),
            statistic: stand_in.map(|_| "imatrix"),
            rows_skipped: progress.rows_skipped,
            dtype: of.dtype(index).written_name(),
            output_power: is_under_r.then(|| measured().map_or(0.0, |s| s.output_power)),
            error: is_under_r.then(|| measured().map(ErrorRecord::new).unwrap_or_default()),
            diagonal_error: stand_in.map(DiagonalErrorRecord::new),
            window_error: sketched.map(WindowErrorRecord::new),
            sketch: sketched.and_then(|s| s.sketched),
            held_out_error: solution.and_then(|s| s.held_out),
            evidence: progress.evidence,
            converged: progress.converged,
            folding: progress.folding,
            spectrum: solution.map(|s| s.spectrum.clone()).unwrap_or_default(),
        }
    }
}

impl DiagonalErrorRecord {
    fn new(solution: &LayerSolution) -> Self {
        let power = solution.output_power;
        Self {
            power,
            without: solution.error_without,
            with: solution.error_with,
            rounded: solution.factors.error,
            rounded_bf16: solution.error_bf16,
            relative_without: ratio(solution.error_without, power),
            relative_with: ratio(solution.factors.error, power),
        }
    }
}

impl ErrorRecord {
    fn new(solution: &LayerSolution) -> Self {
        Self {
            without: solution.error_without,
            with: solution.error_with,
            rounded: solution.factors.error,
            rounded_bf16: solution.error_bf16,
            uncertainty: solution.uncertainty(),
            in_asked_dtype: solution.not_as_asked.map(in_asked_dtype),
            relative_without: ratio(solution.error_without, solution.output_power),
            relative_with: ratio(solution.factors.error, solution.output_power),
        }
    }
}
