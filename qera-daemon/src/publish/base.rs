//! `OUT/base`: the checkpoint with W~ in place of the selected weights, as an ordinary bf16 Hugging Face
//! folder, so that any engine can load what the adapter corrects. MXINT values of up to 8 bits are exact
//! in bf16.

use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use qera_core::dtype::FloatDtype;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::disk::{write_json, write_synced};
use crate::error::Fatal;
use crate::formats::safetensors::header::{Header, float_dtype};
use crate::formats::safetensors::writer::{Sink, TensorPlan, write};
use crate::publish::manifest::quantizer_name;
use crate::publish::out_folder::OutFolder;
use crate::publish::peft::encode;
use crate::settings::Settings;
use crate::weights::checkpoint::{Checkpoint, Tensor};
use crate::weights::layers::{Layer, fingerprint_of_others};

const RECORD: &str = "qera_base.json";
/// Elements converted at a time.
const PIECE: usize = 1 << 20;
/// Files beside the weights that a loader wants.
const COMPANIONS: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "preprocessor_config.json",
];

/// What a base folder was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// `mxint4/32`, say.
    pub(crate) quantizer: String,
    /// Fingerprint of the selected full-precision weights.
    pub(crate) checkpoint: String,
    /// Fingerprint of all other tensors.
    pub(crate) others: String,
    /// Layers that hold W~.
    pub(crate) layers: Vec<String>,
}

impl Base {
    /// What this run would write.
    #[must_use]
    pub(crate) fn new(
        settings: &Settings,
        checkpoint: &Checkpoint,
        layers: &[Layer],
        weights: &str,
    ) -> Self {
        Self {
            quantizer: quantizer_name(settings),
            checkpoint: weights.to_owned(),
            others: fingerprint_of_others(checkpoint, layers),
            layers: layers.iter().map(|l| l.name.clone()).collect(),
        }
    }

    /// Identifies quantizer, layers and weights in every manifest.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> String {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        format!("blake3:{}", blake3::hash(&bytes).to_hex())
    }

    /// Whether `OUT/base` is there already. A run without `--emit-base` into a folder whose base has
    /// another quantizer is refused as well: the adapter would be served on the wrong weights.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] when the base there was made from something else.
    pub(crate) fn present(&self, out: &OutFolder) -> Result<bool, Fatal> {
        let folder = out.path.join("base");
        if !folder.exists() {
            return Ok(false);
        }
        let refuse = |reason| Fatal::StateRefused {
            path: folder.clone(),
            reason,
        };
        let text = fs::read_to_string(folder.join(RECORD))
            .map_err(|e| refuse(format!("its {RECORD} cannot be read: {e}")))?;
        let found: Self = serde_json::from_str(&text)
            .map_err(|e| refuse(format!("its {RECORD} cannot be read: {e}")))?;
        if found == *self {
            let weights = Header::read(&folder.join("model.safetensors"));
            weights.map_err(|e| {
                refuse(format!(
                    "its model.safetensors is damaged: {e}; remove the folder"
                ))
            })?;
            return Ok(true);
        }
        Err(refuse(if found.quantizer != self.quantizer {
            format!(
                "was made with {}, this run uses {}: choose another --out",
                found.quantizer, self.quantizer
            )
        } else if found.layers != self.layers {
            format!(
                "holds W~ of {} layers, this run selects {}: choose another --out",
                found.layers.len(),
                self.layers.len()
            )
        } else {
            "was made from other weights: choose another --out".into()
        }))
    }
}

/// Writes `OUT/base`, once, by rename.
///
/// # Errors
/// [`Fatal::Io`], and [`Fatal::Checkpoint`] for a weight that is NaN or infinite.
pub(crate) fn emit(
    out: &OutFolder,
    checkpoint: &Checkpoint,
    settings: &Settings,
    layers: &[Layer],
    base: &Base,
) -> Result<PathBuf, Fatal> {
    write_aside(out, checkpoint, settings, layers, base)
        .inspect_err(|_| out.abandon(""))
        .and_then(|aside| out.rename_in(&aside, "", "base"))
}

fn write_aside(
    out: &OutFolder,
    checkpoint: &Checkpoint,
    settings: &Settings,
    layers: &[Layer],
    base: &Base,
) -> Result<PathBuf, Fatal> {
    let aside = out.aside("")?;
    let names: Vec<&String> = checkpoint.tensors.keys().collect();
    let tensors: Vec<&Tensor> = checkpoint.tensors.values().collect();
    let plans: Vec<_> = names
        .iter()
        .zip(&tensors)
        .map(|(name, tensor)| TensorPlan {
            name: (*name).clone(),
            dtype: if float_dtype(tensor.dtype).is_some() {
                Dtype::BF16
            } else {
                tensor.dtype
            },
            shape: tensor.shape.clone(),
        })
        .collect();
    write(&aside.join("model.safetensors"), &plans, |index, out| {
        let layer = names[index]
            .strip_suffix(".weight")
            .and_then(|name| layers.binary_search_by(|l| l.name.as_str().cmp(name)).ok());
        let Some(layer) = layer else {
            return copy_as_bf16(checkpoint, tensors[index], out);
        };
        let layer = &layers[layer];
        let mut weight = layer.read_weight(checkpoint)?;
        layer.quantize(checkpoint, settings, &mut weight, |_, quantized| {
            out.write_all(&encode(quantized, FloatDtype::Bf16))
        })
    })?;
    copy_companions(checkpoint, &aside)?;
    write_json(&aside.join(RECORD), base)?;
    Ok(aside)
}

/// A tensor that stays as it is, in bf16 where it is a float; a piece at a time. Its values are not qera's
/// business: masks may hold infinities.
fn copy_as_bf16(checkpoint: &Checkpoint, tensor: &Tensor, out: &mut Sink<'_>) -> Result<(), Fatal> {
    let bytes = checkpoint.bytes(tensor);
    match float_dtype(tensor.dtype) {
        None | Some(FloatDtype::Bf16) => out.write_all(bytes),
        Some(FloatDtype::F32) => bytes.chunks(4 * PIECE).try_for_each(|piece| {
            let values = piece
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b));
            out.write_all(
                &values
                    .flat_map(|v| bf16::from_f32(v).to_le_bytes())
                    .collect::<Vec<_>>(),
            )
        }),
        Some(FloatDtype::F16) => bytes.chunks(2 * PIECE).try_for_each(|piece| {
            let values = piece
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| f16::from_le_bytes(*b).to_f32());
            out.write_all(
                &values
                    .flat_map(|v| bf16::from_f32(v).to_le_bytes())
                    .collect::<Vec<_>>(),
            )
        }),
    }
}

/// Copies what lies beside the weights; config.json is told that the weights are bf16 now.
fn copy_companions(checkpoint: &Checkpoint, aside: &Path) -> Result<(), Fatal> {
    let folder = checkpoint.folder();
    for name in COMPANIONS {
        let from = folder.join(name);
        if !from.is_file() {
            continue;
        }
        let mut bytes = fs::read(&from).map_err(Fatal::io(&from, "read"))?;
        if name == "config.json"
            && let Ok(mut config) = serde_json::from_slice::<serde_json::Value>(&bytes)
            && let Some(map) = config.as_object_mut()
        {
            // Two names of the same thing, the second newer; one is always set.
            for key in ["torch_dtype", "dtype"] {
                if map.contains_key(key) || (key == "torch_dtype" && !map.contains_key("dtype")) {
                    map.insert(key.into(), "bfloat16".into());
                }
            }
            bytes = serde_json::to_vec_pretty(&config)
                .map_err(|e| Fatal::io(&from, "rewrite")(e.into()))?;
        }
        write_synced(&aside.join(name), &bytes)?;
    }
    Ok(())
}
