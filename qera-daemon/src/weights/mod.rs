//! The weights: W and W~ of every layer, and nobody else who knows where they come from
//! ([`Weights`]). Beneath it: which files and tensors (`checkpoint`), which of them are linear
//! layers (`layers`), the model with W~ in place of W (`model`). Above it: which layers share an
//! input (`sites`), and a site's layers, one in memory at a time (`site_layers`).

pub(crate) mod checkpoint;
pub(crate) mod layers;
pub(crate) mod model;
pub(crate) mod site_layers;
pub(crate) mod sites;

use core::fmt;
use std::path::Path;

use qera_core::quantize::Mxint;

use crate::error::Fatal;
use crate::host::kernels::page_vec::PageVec;
use crate::host::second_moment::SecondMomentKind;
use crate::settings::Settings;
use crate::weights::checkpoint::{Checkpoint, refuse};
use crate::weights::layers::{Layer, Selected, module_of, tensor_of};
use crate::weights::sites::{Shares, Sites};

/// A model's weights: the layers that are corrected, W and W~ of each, and what else is known of
/// the model.
#[derive(Debug)]
pub(crate) struct Weights {
    checkpoint: Checkpoint,
    selected: Selected,
    quantizer: Mxint,
    model_names: Vec<String>,
}

/// What W~ is stored in: `mxint4/32`, say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightFormat {
    /// `mxint4`, say.
    pub(crate) name: String,
    /// Elements per shared exponent.
    pub(crate) block_size: usize,
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.block_size)
    }
}

impl Weights {
    /// Opens what `--checkpoint` names; `None` where it names nothing.
    ///
    /// # Errors
    /// A checkpoint that cannot serve, naming the file, and the tensor where it is one; a selection
    /// that cannot be had.
    pub(crate) fn open(settings: &Settings) -> Result<Option<Self>, Fatal> {
        let settings = &settings.weights;
        let Some(path) = &settings.checkpoint else {
            return Ok(None);
        };
        let checkpoint = Checkpoint::open(path)?;
        let selected = Selected::of(&checkpoint, settings)?;
        let model_names = checkpoint.model_names();
        Ok(Some(Self {
            checkpoint,
            selected,
            quantizer: settings.quantizer,
            model_names,
        }))
    }

    /// The layers to be corrected, sorted by name; everywhere else a layer is its index here.
    #[must_use]
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.selected.layers
    }

    /// Where the model lies, as it was given.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.checkpoint.path
    }

    /// The folder that holds what lies beside the weights.
    #[must_use]
    pub(crate) fn folder(&self) -> &Path {
        self.checkpoint.folder()
    }

    /// The names under which a shard's `qera.model` may call this model.
    #[must_use]
    pub(crate) fn model_names(&self) -> &[String] {
        &self.model_names
    }

    /// Weights of more than two dimensions that are not corrected: fused experts, convolutions.
    #[must_use]
    pub(crate) fn passed_over(&self) -> &[String] {
        &self.selected.passed_over
    }

    /// What W~ is stored in.
    #[must_use]
    pub(crate) fn format(&self) -> WeightFormat {
        WeightFormat {
            name: format!("mxint{}", self.quantizer.element_bits()),
            block_size: self.quantizer.block_size(),
        }
    }

    /// Whether the model has a module of this name, selected or not.
    #[must_use]
    pub(crate) fn has_module(&self, module: &str) -> bool {
        self.checkpoint.tensors.contains_key(&tensor_of(module))
    }

    /// Width of the input of a linear layer of the model, selected or not.
    #[must_use]
    pub(crate) fn in_features(&self, module: &str) -> Option<usize> {
        match self.checkpoint.tensors.get(&tensor_of(module))?.shape[..] {
            [_, in_features] => Some(in_features),
            _ => None,
        }
    }

    /// Groups the layers into sites.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming both layers, when two that shall share an input differ in
    /// in_features.
    pub(crate) fn sites(
        &self,
        shares: &Shares,
        second_moment: SecondMomentKind,
    ) -> Result<Sites, Fatal> {
        let sites = Sites::group(self.layers(), shares, second_moment);
        sites.map_err(|e| refuse(self.path(), e.to_string()))
    }

    /// W (m x n) of a layer, by columns.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] with file, tensor, row and column of the first NaN or infinite weight.
    pub(crate) fn original(&self, layer: usize) -> Result<PageVec<f32>, Fatal> {
        self.layers()[layer].decode(&self.checkpoint)
    }

    /// Shows W~ of a layer, some columns after others, in order.
    ///
    /// # Errors
    /// What `each` returns, and as for [`original`](Self::original).
    pub(crate) fn quantized(
        &self,
        layer: usize,
        mut each: impl FnMut(&[f32]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let mut weight = self.original(layer)?;
        self.layers()[layer].quantize(
            &self.checkpoint,
            &self.quantizer,
            &mut weight,
            |_, quantized| each(quantized),
        )
    }

    /// E = W - W~ of a layer, in the memory of its W. Exact in f32: W~ is W rounded to fewer bits,
    /// or 0, so that the difference is a multiple of W's last place and no larger than W.
    ///
    /// # Errors
    /// As for [`original`](Self::original).
    pub(crate) fn error(
        &self,
        layer: usize,
        mut weight: PageVec<f32>,
    ) -> Result<PageVec<f32>, Fatal> {
        self.layers()[layer].quantize(
            &self.checkpoint,
            &self.quantizer,
            &mut weight,
            |weight, quantized| {
                weight.iter_mut().zip(quantized).for_each(|(w, q)| *w -= q);
                Ok(())
            },
        )?;
        Ok(weight)
    }

    /// BLAKE3 over name, type, shape and bytes of the selected weights, in name order.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for layer in self.layers() {
            layer.hash(&self.checkpoint, &mut hasher);
        }
        format!("blake3:{}", hasher.finalize().to_hex())
    }

    /// BLAKE3 over name, type, shape and bytes of all tensors but the selected weights, in name
    /// order.
    #[must_use]
    pub(crate) fn fingerprint_of_others(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, tensor) in &self.checkpoint.tensors {
            if self.layer_of(name).is_none() {
                hasher.update(format!("{name}\0{}\0{:?}\0", tensor.dtype, tensor.shape).as_bytes());
                hasher.update(self.checkpoint.bytes(tensor));
            }
        }
        format!("blake3:{}", hasher.finalize().to_hex())
    }

    /// The layer that a tensor is the weight of.
    fn layer_of(&self, tensor: &str) -> Option<usize> {
        let module = module_of(tensor)?;
        let layers = self.layers();
        layers
            .binary_search_by(|layer| layer.name.as_str().cmp(module))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::options::Options;
    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize_to_file};

    /// A model with a linear layer [2, 4], a norm, a convolution and a bias, all of the same
    /// numbers.
    fn weights(folder: &Path, values: &[f32; 8]) -> Weights {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let view = |shape: &[usize]| TensorView::new(Dtype::F32, shape.into(), &bytes).unwrap();
        let tensors = [
            ("a.linear.weight", view(&[2, 4])),
            ("a.linear.bias", view(&[8])),
            ("a.norm.weight", view(&[8])),
            ("a.conv.weight", view(&[2, 2, 2])),
        ];
        std::fs::create_dir_all(folder).unwrap();
        let path = folder.join("model.safetensors");
        serialize_to_file(tensors, None, &path).unwrap();
        let settings = Settings::resolve(&Options {
            checkpoint: Some(path),
            quantizer: Some("mxint2".into()),
            block_size: Some(4),
            ..Options::defaults()
        });
        Weights::open(&settings.unwrap()).unwrap().unwrap()
    }

    #[test]
    fn w_its_quantized_values_and_their_difference_belong_together() {
        let folder = std::env::temp_dir().join(format!("qera-weights-{}", std::process::id()));
        let values = [1.0, 0.3, -0.7, 0.0, 8.0, -8.0, 5.0, 2.5];
        let weights = weights(&folder, &values);
        let original = weights.original(0).unwrap();
        assert_eq!(original[..], values);
        let mut quantized = Vec::new();
        weights
            .quantized(0, |piece| {
                quantized.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        // Two bits and a shared exponent leave -1, 0, 1 times the block's power of two.
        assert_eq!(quantized, [1.0, 0.0, -1.0, 0.0, 8.0, -8.0, 8.0, 0.0]);
        let error = weights.error(0, original).unwrap();
        for ((w, q), e) in values.iter().zip(&quantized).zip(error.iter()) {
            assert_eq!((w - q).to_bits(), e.to_bits());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_model_answers_for_every_module_and_gives_every_tensor() {
        let folder = std::env::temp_dir().join(format!("qera-model-{}", std::process::id()));
        let weights = weights(&folder, &[1.0; 8]);
        let names: Vec<_> = weights.layers().iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["a.linear"]);
        assert_eq!(weights.passed_over(), ["a.conv"]);
        assert_eq!(weights.format().to_string(), "mxint2/4");
        assert_eq!(weights.in_features("a.linear"), Some(4));
        assert_eq!(weights.in_features("a.norm"), None);
        assert!(weights.has_module("a.norm") && !weights.has_module("a.linear.bias"));
        let mut bytes = Vec::new();
        for tensor in weights.model() {
            let before = bytes.len();
            weights
                .model_bytes(&tensor, |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
            assert_eq!(bytes.len() - before, tensor.plan.bytes(), "{tensor:?}");
        }
        // 1 in bf16, eight in each of four tensors.
        assert_eq!(bytes, [0x80, 0x3f].repeat(32));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
