//! What is known of a packed base; it stands in the base's record and in every manifest.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::formats::compressed_tensors::scheme::{CodeWords, FORMAT, PackScheme};
use crate::formats::safetensors::header::dtype_name;
use crate::observe::run_events::PackedBaseWritten;
use crate::publish::packed_base::layout::{PackedFigures, PackedLayout, WholeLayer};
use crate::weights::Weights;

/// The record of a packed base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PackedRecord {
    /// `pack-quantized`.
    pub(crate) format: String,
    /// Bits of a code.
    pub(crate) bits: u32,
    /// How many neighbours along in_features share a scale.
    pub(crate) group_size: usize,
    /// Type of a scale.
    pub(crate) scale_dtype: String,
    /// Whether each group also has a zero point.
    pub(crate) zero_points: bool,
    /// Whether code times scale is exactly W~ in bfloat16 as well.
    pub(crate) exact_in_bf16: bool,
    /// Whether vLLM has a kernel for this on CPUs.
    pub(crate) runs_on_cpus: bool,
    /// The sizes of the files.
    #[serde(flatten)]
    pub(crate) figures: PackedFigures,
    /// Selected layers whose W~ is stored as numbers.
    pub(crate) whole: Vec<WholeLayer>,
    /// BLAKE3 of model.safetensors.
    pub(crate) blake3: String,
}

impl PackedRecord {
    /// The record of a base that was written.
    #[must_use]
    pub(crate) fn new(weights: &Weights, layout: &PackedLayout, blake3: String) -> Self {
        let PackScheme {
            bits,
            group_size,
            scale_dtype,
            powers_of_two: exact_in_bf16,
            zero_points,
        } = layout.scheme;
        Self {
            format: FORMAT.into(),
            bits,
            group_size,
            scale_dtype: dtype_name(scale_dtype).to_string(),
            zero_points,
            exact_in_bf16,
            runs_on_cpus: layout.scheme.runs_on_cpus(),
            figures: layout.figures(weights),
            whole: layout.whole.clone(),
            blake3,
        }
    }

    /// The `quantization_config` of the config.json beside these files.
    #[must_use]
    pub(crate) fn config(&self, ignore: &[String]) -> Value {
        let codes = CodeWords {
            bits: self.bits,
            group_size: self.group_size,
            zero_points: self.zero_points,
        };
        codes.config(ignore)
    }

    /// The event that the base is in its place.
    #[must_use]
    pub(crate) fn written(&self, path: String) -> PackedBaseWritten {
        let PackedFigures {
            layers,
            bits_per_weight,
            bits_per_parameter,
            bytes,
        } = self.figures;
        PackedBaseWritten {
            path,
            bits: self.bits,
            group_size: self.group_size,
            layers,
            whole: self.whole.len(),
            bits_per_weight,
            bits_per_parameter,
            bytes,
            runs_on_cpus: self.runs_on_cpus,
        }
    }

    /// The text for a person who finds the base.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let Self {
            format,
            bits,
            group_size,
            scale_dtype,
            figures,
            ..
        } = self;
        let kernels = if self.runs_on_cpus {
            ""
        } else {
            "\nvLLM serves 8 bits on GPUs only: it has no CPU kernel for them.\n"
        };
        let exact = if self.exact_in_bf16 {
            "Code times scale is W~ exactly, in bfloat16 too."
        } else {
            "Code times scale is W~ exactly in float32. An engine rounds the scale to the type that it serves in, and the product as well."
        };
        let whole = self.whole.iter();
        let whole = whole.map(|of| format!("- `{}`: {}\n", of.layer, of.reason));
        let whole: String = whole.collect();
        let whole = match whole.is_empty() {
            true => whole,
            false => format!("\nLayers whose W~ stands as numbers:\n\n{whole}"),
        };
        format!(
            "## Packed

{} layers are packed as compressed-tensors `{format}`: {bits} bits, groups of {group_size}, scales {scale_dtype};
{:.2} bits a weight with their scales, {:.2} bits a number of the whole model. {exact}
{kernels}{whole}",
            figures.layers, figures.bits_per_weight, figures.bits_per_parameter
        )
    }
}
