//! `OUT/base-compressed-tensors`: a copy of the checkpoint with codes and scales in the place of
//! the selected weights, packed as compressed-tensors does, so that engines serve it as it is.
//! `layout` says which layers are packed, `fused` which modules engines fuse, and `record` keeps
//! what is known of the files.

pub(crate) mod fused;
pub(crate) mod layout;
pub(crate) mod record;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::disk::{read, write_json, write_synced};
use crate::error::Fatal;
use crate::formats::compressed_tensors::words::{pack_columns, pack_row};
use crate::formats::safetensors::header::encode;
use crate::formats::safetensors::writer::{TensorPlan, WriteError, Writer};
use crate::publish::base::{Base, BaseRecord, MODEL, RECORD};
use crate::publish::base_worth::{BaseWorth, README};
use crate::publish::companions::Companions;
use crate::publish::hashed_file::HashedFile;
use crate::publish::out_folder::OutFolder;
use crate::publish::packed_base::layout::{PackedLayout, shape_of};
use crate::publish::packed_base::record::PackedRecord;
use crate::publish::sample::{DIGESTED, digest, digest_of_layer};
use crate::settings::publish::BaseForm;
use crate::weights::Weights;
use crate::weights::checkpoint::refuse;
use crate::weights::frozen::packed::PackedLayer;

/// Name of the model's configuration.
pub(crate) const CONFIG: &str = "config.json";

/// What a packed base is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedBase<'a> {
    /// W and W~.
    pub(crate) weights: &'a Weights,
    /// Which layers are packed.
    pub(crate) layout: &'a PackedLayout,
    /// What the base is made from, for its record.
    pub(crate) base: &'a Base,
    /// The errors of W~.
    pub(crate) worth: &'a BaseWorth,
    /// The files beside the weights.
    pub(crate) companions: &'a Companions,
}

impl PackedBase<'_> {
    /// Writes the base once, and renames it into place; returns its record.
    ///
    /// # Errors
    /// [`Fatal::Io`], and [`Fatal::Checkpoint`] for a weight that is NaN or infinite.
    pub(crate) fn emit(&self, out: &OutFolder) -> Result<BaseRecord, Fatal> {
        let unfinished = out.begin("")?;
        let written = self.write(&unfinished);
        let record = written.inspect_err(|_| out.abandon(""))?;
        out.rename_in(&unfinished, "", BaseForm::CompressedTensors.folder())?;
        Ok(record)
    }

    fn write(&self, folder: &Path) -> Result<BaseRecord, Fatal> {
        self.companions.copy(folder)?;
        write_json(&folder.join(CONFIG), &config_of(self.weights, self.layout)?)?;
        let WrittenTensors { samples, blake3 } = self.write_tensors(&folder.join(MODEL))?;
        let record = BaseRecord {
            base: self.base.clone(),
            samples,
            packed: Some(PackedRecord::new(self.weights, self.layout, blake3)),
            gguf: None,
        };
        write_json(&folder.join(RECORD), &record)?;
        let text = record
            .packed
            .as_ref()
            .map_or(String::new(), PackedRecord::text);
        let readme = format!("{}\n{text}", self.worth.text());
        write_synced(&folder.join(README), readme.as_bytes())?;
        Ok(record)
    }

    fn write_tensors(&self, path: &Path) -> Result<WrittenTensors, Fatal> {
        let (weights, packed) = (self.weights, &self.layout.packed);
        let mut whole = weights.model(|layer| packed[layer])?;
        // Sorted like this, every tensor begins at a multiple of its element's size, because packed
        // tensors have whole rows of 32 outputs.
        whole.sort_by_key(|tensor| core::cmp::Reverse(tensor.plan.dtype.bitsize()));
        let layers = || (0..packed.len()).filter(|layer| packed[*layer]);
        let plans: Vec<TensorPlan> = layers()
            .flat_map(|layer| self.plans(layer))
            .chain(whole.iter().map(|tensor| tensor.plan.clone()))
            .collect();
        let failed = WriteError::of(path);
        let file = HashedFile::create(path)?;
        let mut writer = Writer::begin(file, &BTreeMap::new(), &plans).map_err(&failed)?;
        let mut samples = BTreeMap::new();
        for layer in layers() {
            weights.with_codes(layer, |of| {
                for tensor in self.tensors(of) {
                    writer.tensor(&tensor).map_err(&failed)?;
                }
                samples.insert(weights.layers()[layer].name.clone(), digest_of(of));
                Ok(())
            })?;
        }
        for tensor in &whole {
            weights.model_bytes(tensor, |bytes| writer.put(bytes).map_err(&failed))?;
            writer.end().map_err(&failed)?;
        }
        for (layer, of) in weights.layers().iter().enumerate() {
            if !packed[layer] {
                samples.insert(of.name.clone(), digest_of_layer(weights, layer)?);
            }
        }
        let blake3 = writer.finish().map_err(&failed)?.sync()?.blake3;
        Ok(WrittenTensors { samples, blake3 })
    }

    fn plans(&self, layer: usize) -> Vec<TensorPlan> {
        let layer = &self.weights.layers()[layer];
        self.layout.scheme.plans(&layer.name, shape_of(layer))
    }

    /// The bytes of a layer's tensors, in the order of [`plans`](Self::plans).
    fn tensors(&self, of: &PackedLayer) -> Vec<Vec<u8>> {
        let scheme = &self.layout.scheme;
        let (rows, width) = (of.shape.out_features, of.shape.in_features);
        let (mut words, mut scales) = (Vec::new(), Vec::new());
        let mut codes = vec![0; width];
        for row in 0..rows {
            of.codes_of(row, scheme.offset(), &mut codes);
            words.extend(pack_row(&codes, scheme.bits));
            scales.extend(encode(of.steps_of(row), scheme.scale_dtype));
        }
        let shape = [rows as u64, width as u64];
        let shape = shape.into_iter().flat_map(u64::to_le_bytes).collect();
        let mut tensors = vec![words, scales, shape];
        if scheme.zero_points {
            let columns = of.shape.blocks();
            let points: Vec<u8> = (0..rows * columns)
                .map(|block| of.zero_point_of(block))
                .collect();
            tensors.push(pack_columns(&points, columns));
        }
        tensors
    }
}

/// The checkpoint's config.json, with a description of how the weights are packed.
///
/// # Errors
/// [`Fatal::Io`]; [`Fatal::Checkpoint`] for a config.json that is not JSON.
pub(crate) fn config_of(weights: &Weights, layout: &PackedLayout) -> Result<Value, Fatal> {
    let path = weights.folder().join(CONFIG);
    let bytes = read(&path).map_err(Fatal::io(&path, "read"))?;
    let config: Result<Value, _> = serde_json::from_slice(&bytes);
    let mut config = config.map_err(|e| refuse(&path, format!("not JSON: {e}")))?;
    let PackedLayout { scheme, ignore, .. } = layout;
    config["quantization_config"] = scheme.config(ignore);
    Ok(config)
}

/// Digests of what was written.
struct WrittenTensors {
    /// BLAKE3 of some rows of W~ of each layer.
    samples: BTreeMap<String, String>,
    /// BLAKE3 of the file.
    blake3: String,
}

/// The same digest as [`digest_of_layer`], from the packed form.
fn digest_of(of: &PackedLayer) -> String {
    let (width, outputs) = (of.shape.in_features, of.shape.out_features);
    let mut row_values = vec![0.0; width];
    let mut values = Vec::new();
    for row in DIGESTED.rows_of(outputs) {
        of.unpack(row, &mut row_values);
        values.extend_from_slice(&row_values[..DIGESTED.width.min(width)]);
    }
    digest(&values)
}
