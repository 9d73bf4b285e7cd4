//! The adapter as a GGUF LoRA, which llama.cpp and Ollama load beside the model's own GGUF.
//!
//! Tensors have the names of the model's tensors, and the rows of B lie in the order of the model's
//! rows. `adapter.lora.alpha` is 0, which makes llama.cpp apply every pair as it is, whatever its
//! rank.

use std::collections::BTreeMap;

use crate::error::Fatal;
use crate::formats::gguf::lora::{LoraFactor, factor_name, metadata};
use crate::formats::gguf::writer::{GgufTensorPlan, GgufWriteError, GgufWriter, MetadataValue};
use crate::publish::forms::GGUF;
use crate::publish::generation_files::GenerationFiles;
use crate::publish::layers::{PaddedFactors, PublishedLayers};
use crate::publish::manifest::Fingerprints;
use crate::weights::gguf::layer_names::GgufNames;
use crate::weights::gguf::rows::RowOrder;

/// What the file says about its origin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Provenance<'a> {
    /// The generation's number.
    pub(crate) generation: u64,
    /// Fingerprints of what the adapter belongs to.
    pub(crate) fingerprints: &'a Fingerprints,
}

/// Writes the file.
///
/// # Errors
/// [`Fatal::Io`], [`Fatal::Unwritten`].
pub(crate) fn write_gguf(
    files: &mut GenerationFiles,
    published: &PublishedLayers<'_>,
    names: &GgufNames,
    provenance: Provenance<'_>,
) -> Result<(), Fatal> {
    let mut plans = Vec::new();
    for of in published.solved() {
        let (layer, dtype) = (of.layer, of.solution.factors.dtype);
        let rank = dtype.padded_rank(published.rank_of(&of));
        let tensor = &names.layers[of.index].tensor;
        let plan = |factor, ne: [usize; 2]| GgufTensorPlan {
            name: factor_name(tensor, factor),
            ne: ne.into(),
            type_number: dtype.block_type().number(),
        };
        plans.push(plan(LoraFactor::A, [layer.in_features, rank]));
        plans.push(plan(LoraFactor::B, [rank, layer.out_features]));
    }
    let path = files.path(GGUF);
    let failed = GgufWriteError::of(&path);
    let out = files.create(GGUF)?;
    let metadata = provenance.metadata(names.architecture);
    let mut writer = GgufWriter::begin(out, &metadata, &plans).map_err(&failed)?;
    for of in published.solved() {
        let dtype = of.solution.factors.dtype;
        let rank = dtype.padded_rank(published.rank_of(&of));
        let PaddedFactors { lora_a, lora_b } = of.padded(rank);
        let lora_b = stored(&lora_b, rank, names.layers[of.index].rows);
        let lora_a = dtype.encode(&lora_a, of.layer.in_features);
        writer.tensor(&lora_a).map_err(&failed)?;
        writer
            .tensor(&dtype.encode(&lora_b, rank))
            .map_err(&failed)?;
    }
    files.wrote(GGUF, writer.finish().map_err(&failed)?.sync()?);
    Ok(())
}

/// The rows of B in the order in which the model's rows lie.
fn stored(lora_b: &[f32], rank: usize, rows: RowOrder) -> Vec<f32> {
    let mut stored = vec![0.0; lora_b.len()];
    for (row, values) in lora_b.chunks_exact(rank).enumerate() {
        stored[rows.stored(row) * rank..][..rank].copy_from_slice(values);
    }
    stored
}

impl Provenance<'_> {
    fn metadata(&self, architecture: &str) -> BTreeMap<&'static str, MetadataValue> {
        let Fingerprints {
            checkpoint,
            model,
            settings,
            names,
            base,
            rounded,
            quantized,
            imatrix,
        } = self.fingerprints;
        let mut all = metadata(architecture);
        let mut put = |key, value: &str| {
            all.insert(key, MetadataValue::Text(value.to_owned()));
        };
        put("qera.version", env!("CARGO_PKG_VERSION"));
        put("qera.generation", &self.generation.to_string());
        put("qera.fingerprints.checkpoint", checkpoint);
        put("qera.fingerprints.settings", settings);
        let optional = [
            ("qera.fingerprints.model", model),
            ("qera.fingerprints.names", names),
            ("qera.fingerprints.base", base),
            ("qera.fingerprints.rounded", rounded),
            ("qera.fingerprints.quantized", quantized),
            ("qera.fingerprints.imatrix", imatrix),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                put(key, value);
            }
        }
        all
    }
}
