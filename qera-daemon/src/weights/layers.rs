//! Which tensors of a checkpoint are the linear layers to be corrected, and reading one of them.
//!
//! A linear layer is a 2-D tensor `NAME.weight` of shape [out_features, in_features]; NAME is the
//! module path and the key used everywhere (shards, manifest, adapter).

use qera_core::dtype::{DecodeError, FloatDtype, decode_weights};
use qera_core::quantize::Mxint;

use crate::error::Fatal;
use crate::formats::safetensors::header::float_dtype;
use crate::host::kernels::page_vec::PageVec;
use crate::settings::weights::{Selection, WeightsSettings};
use crate::weights::checkpoint::{Checkpoint, Tensor, refuse};

/// Architectures whose "linear" weights are stored transposed (Conv1D, in x out).
const TRANSPOSED: [&str; 3] = ["gpt2", "imagegpt", "openai-gpt"];

/// Numbers that are quantized at a time, in whole rows.
const QUANTIZED: usize = 1 << 16;
/// What follows the module's name in its tensor's.
const WEIGHT: &str = ".weight";

/// A linear layer to be corrected.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Module path.
    pub(crate) name: String,
    /// Width of its input: m.
    pub(crate) in_features: usize,
    /// Width of its output: n.
    pub(crate) out_features: usize,
    /// Rank to solve for: what was asked, at most min(in_features, out_features).
    pub(crate) rank: usize,
    /// Rank asked for.
    pub(crate) rank_asked: usize,
    dtype: FloatDtype,
    tensor: Tensor,
}

/// The selected layers.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Sorted by name.
    pub(crate) layers: Vec<Layer>,
    /// Weights of more than two dimensions that are not corrected: fused experts, convolutions.
    pub(crate) passed_over: Vec<String>,
}

impl Selected {
    /// Selects the layers.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] by name: a selected weight with a type other than F32, F16 and BF16,
    /// one that is not 2-D, a checkpoint that is quantized or stores weights transposed.
    /// [`Fatal::Usage`] for an `--include` that matches nothing.
    pub(crate) fn of(checkpoint: &Checkpoint, settings: &WeightsSettings) -> Result<Self, Fatal> {
        refuse_foreign(checkpoint)?;
        let selection = &settings.selection;
        let mut layers = Vec::new();
        let mut passed_over = Vec::new();
        for (tensor_name, tensor) in &checkpoint.tensors {
            let Some(name) = module_of(tensor_name) else {
                continue;
            };
            if !selection.selects(name) {
                continue;
            }
            if !is_linear(checkpoint, selection, name, tensor)? {
                if tensor.shape.len() > 2 {
                    passed_over.push(name.to_owned());
                }
                continue;
            }
            layers.push(Layer::describe(checkpoint, settings, name, tensor)?);
        }
        // Tensors are sorted with their ".weight", which is another order.
        layers.sort_by(|a, b| a.name.cmp(&b.name));
        check_selection(checkpoint, settings, &layers)?;
        Ok(Self {
            layers,
            passed_over,
        })
    }
}

/// The module whose weight a tensor is.
pub(crate) fn module_of(tensor: &str) -> Option<&str> {
    tensor.strip_suffix(WEIGHT)
}

/// The tensor that is a module's weight.
pub(crate) fn tensor_of(module: &str) -> String {
    format!("{module}{WEIGHT}")
}

/// Refuses what was asked for by name and cannot be had.
fn check_selection(
    checkpoint: &Checkpoint,
    settings: &WeightsSettings,
    selected: &[Layer],
) -> Result<(), Fatal> {
    let usage = |message| Err(Fatal::Usage(message));
    let tied = checkpoint.config.ties_embeddings();
    for Layer { name, .. } in selected {
        if is_embedding(name) {
            return usage(format!(
                "--include '{name}': is an embedding, no linear layer"
            ));
        }
        if tied && name.rsplit('.').next() == Some("lm_head") {
            return usage(format!(
                "--include '{name}': is tied to the embedding and cannot be corrected alone"
            ));
        }
    }
    let names: Vec<&str> = selected.iter().map(|l| l.name.as_str()).collect();
    if let Some(glob) = settings.ranks.unmatched(&names) {
        return usage(format!("--rank-for '{glob}': matches no selected layer"));
    }
    for glob in &settings.selection.include {
        if !selected.iter().any(|layer| glob.is_match(&layer.name)) {
            let (glob, path) = (glob.glob(), checkpoint.path.display());
            return usage(format!(
                "--include '{glob}': matches no 2-D linear weight of {path}"
            ));
        }
    }
    if selected.is_empty() {
        return Err(refuse(
            &checkpoint.path,
            "holds no 2-D linear weight that is selected".into(),
        ));
    }
    Ok(())
}

/// Whether the selected tensor is a linear layer. Without `--include`, what is not 2-D is passed
/// over (norms, convolutions, fused experts); one that an `--include` names is an error, except
/// that a pattern with wildcards may cover 1-D norms beside the linear layers that it means.
fn is_linear(
    checkpoint: &Checkpoint,
    selection: &Selection,
    name: &str,
    tensor: &Tensor,
) -> Result<bool, Fatal> {
    if tensor.shape.len() == 2 {
        return Ok(true);
    }
    let meant = selection
        .include
        .iter()
        .any(|glob| glob.glob().glob() == name || (tensor.shape.len() > 2 && glob.is_match(name)));
    if meant {
        return Err(refuse(
            checkpoint.file_of(tensor),
            format!(
                "tensor '{name}.weight' is selected but has shape {:?}, not [out_features, in_features]",
                tensor.shape
            ),
        ));
    }
    Ok(false)
}

/// Token and position embeddings by their usual names: 2-D, but rows are looked up, not multiplied.
fn is_embedding(name: &str) -> bool {
    let leaf = name.rsplit('.').next().unwrap_or(name);
    ["wte", "wpe", "shared"].contains(&leaf)
        || leaf.starts_with("embed_")
        || leaf.ends_with("_embeddings")
}

fn refuse_foreign(checkpoint: &Checkpoint) -> Result<(), Fatal> {
    if checkpoint.config.is_quantized() {
        return Err(refuse(
            &checkpoint.path,
            "config.json has a quantization_config: give the full-precision model, from which --quantizer makes W~".into(),
        ));
    }
    let model_type = checkpoint.config.model_type();
    if TRANSPOSED.contains(&model_type) {
        return Err(refuse(
            &checkpoint.path,
            format!(
                "model_type '{model_type}' stores its weights as [in_features, out_features] (Conv1D), which is not read"
            ),
        ));
    }
    Ok(())
}

impl Layer {
    /// A selected 2-D tensor as a layer.
    fn describe(
        checkpoint: &Checkpoint,
        settings: &WeightsSettings,
        name: &str,
        tensor: &Tensor,
    ) -> Result<Self, Fatal> {
        let refuse = |reason| {
            refuse(
                checkpoint.file_of(tensor),
                format!("tensor '{name}.weight' {reason}"),
            )
        };
        let dtype = float_dtype(tensor.dtype).ok_or_else(|| {
            refuse(format!(
                "has dtype {}; F32, F16 and BF16 are read",
                tensor.dtype
            ))
        })?;
        let (out_features, in_features) = (tensor.shape[0], tensor.shape[1]);
        if in_features == 0 || out_features == 0 {
            return Err(refuse(format!("is empty: [{out_features}, {in_features}]")));
        }
        let rank_asked = settings.ranks.of(name);
        Ok(Self {
            name: name.to_owned(),
            in_features,
            out_features,
            rank: rank_asked.min(in_features).min(out_features),
            rank_asked,
            dtype,
            tensor: tensor.clone(),
        })
    }

    /// Decodes the weight: W (m x n) by columns.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] with file, tensor, row and column of the first NaN or infinite weight.
    pub(crate) fn decode(&self, checkpoint: &Checkpoint) -> Result<PageVec<f32>, Fatal> {
        let mut weight = PageVec::zeroed(self.in_features * self.out_features);
        decode_weights(self.stored(checkpoint), self.dtype, &mut weight).map_err(|e| match e {
            // decode_weights sees one long row.
            DecodeError::NonFinite { column, value, .. } => {
                let (row, column) = (column / self.in_features, column % self.in_features);
                self.refuse(checkpoint, &DecodeError::NonFinite { row, column, value })
            }
            other => self.refuse(checkpoint, &other),
        })?;
        Ok(weight)
    }

    /// Shows some columns of W beside those of W~, after others, in order.
    ///
    /// # Errors
    /// What `each` returns. [`Fatal::Checkpoint`] for a NaN or infinite weight, which
    /// [`decode`](Self::decode) does not let through.
    pub(crate) fn quantize(
        &self,
        checkpoint: &Checkpoint,
        quantizer: &Mxint,
        weight: &mut [f32],
        mut each: impl FnMut(&mut [f32], &[f32]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let columns = (QUANTIZED / self.in_features).max(1);
        let mut memory = vec![0.0; (columns * self.in_features).min(weight.len())];
        for piece in weight.chunks_mut(columns * self.in_features) {
            let quantized = &mut memory[..piece.len()];
            quantizer
                .quantize_dequantize(piece, self.in_features, quantized)
                .map_err(|e| self.refuse(checkpoint, &e))?;
            each(piece, quantized)?;
        }
        Ok(())
    }

    /// Adds name, type, shape and stored bytes to a fingerprint.
    pub(crate) fn hash(&self, checkpoint: &Checkpoint, hasher: &mut blake3::Hasher) {
        let Tensor { dtype, shape, .. } = &self.tensor;
        hasher.update(format!("{}\0{dtype}\0{shape:?}\0", self.name).as_bytes());
        hasher.update(self.stored(checkpoint));
    }

    fn stored<'c>(&self, checkpoint: &'c Checkpoint) -> &'c [u8] {
        checkpoint.bytes(&self.tensor)
    }

    fn refuse(&self, checkpoint: &Checkpoint, error: &dyn core::fmt::Display) -> Fatal {
        let reason = format!("tensor '{}.weight': {error}", self.name);
        refuse(checkpoint.file_of(&self.tensor), reason)
    }
}
