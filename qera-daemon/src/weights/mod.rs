//! The weights: W and W~ of every layer. No other part of the program knows where they come from
//! ([`Weights`]).
//!
//! Files and tensors are in `checkpoint`, `gguf` (a GGUF) and `packed` (a folder that others
//! packed). What is known of the model by its kind is in `architecture`, by its shards in
//! `recording` and `linears`. `serving` is the class that serves the model. From these follow the
//! layers (`selection`) and what is left as it is (`passed_over`). `layers` is one layer, `model`
//! the model with W~ in place of W.
//!
//! A given W~ is in `given`, checked by `decode_check`. A W~ that was rounded by what rows showed
//! is in `rounded`; `freezing` makes it, `frozen` and `rounded_folders` keep it.
//!
//! `opening` opens a model, `sites` says which layers share an input, and `site_layers` has a
//! site's layers, one in memory at a time.

pub(crate) mod architecture;
pub(crate) mod checkpoint;
pub(crate) mod decode_check;
pub(crate) mod examination;
pub(crate) mod freezing;
pub(crate) mod frozen;
pub(crate) mod gguf;
pub(crate) mod given;
pub(crate) mod identity;
pub(crate) mod layers;
pub(crate) mod linears;
pub(crate) mod mlx;
pub(crate) mod model;
pub(crate) mod opening;
pub(crate) mod packed;
pub(crate) mod passed_over;
pub(crate) mod recording;
pub(crate) mod rounded;
pub(crate) mod rounded_folders;
pub(crate) mod rounded_records;
pub(crate) mod selection;
pub(crate) mod serving;
pub(crate) mod site_layers;
pub(crate) mod sites;
pub(crate) mod sketched;
pub(crate) mod sketched_sites;
pub(crate) mod tied;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use qera_core::quantize::Grid;

use crate::error::Fatal;
use crate::host::kernels::page_vec::PageVec;
use crate::host::second_moment::SecondMomentKind;
use crate::settings::dotted::match_start;
use crate::settings::rounding::RoundingSettings;
use crate::settings::weight_format::WeightFormat;
use crate::weights::architecture::Architectures;
use crate::weights::checkpoint::{Checkpoint, Tensor, refuse};
use crate::weights::frozen::Frozen;
use crate::weights::gguf::family::Family;
use crate::weights::gguf::source::{GgufSource, SourceTensor};
use crate::weights::given::given_layers::GivenLayers;
use crate::weights::layers::{Layer, module_of, tensor_of};
use crate::weights::passed_over::{PassedOver, Why};
use crate::weights::recording::Recording;
use crate::weights::selection::Selected;
use crate::weights::serving::ServingClass;
use crate::weights::sites::{Shares, Sites, UnequalWidths};

/// A model's weights: the layers that are corrected, W and W~ of each, and what else is known of
/// the model.
#[derive(Debug)]
pub(crate) struct Weights {
    checkpoint: Arc<Checkpoint>,
    architectures: Arc<Architectures>,
    selected: Selected,
    recording: Recording,
    serving: ServingClass,
    quantizer: Grid,
    rounding: RoundingSettings,
    /// The W~ that the user gave, where it is not made.
    given: Option<GivenLayers>,
    /// W~ of the layers that were rounded by what rows showed; unset as long as nobody said where
    /// it is kept.
    frozen: OnceLock<Frozen>,
    model_names: Vec<String>,
    /// The fingerprint of each selected weight.
    layer_fingerprints: Vec<String>,
    fingerprint: String,
    identity: String,
}

impl Weights {
    /// The layers to be corrected, sorted by name; everywhere else a layer is its index here.
    #[must_use]
    pub(crate) fn layers(&self) -> &[Layer] {
        &self.selected.layers
    }

    /// The path of the model, as it was given.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.checkpoint.path
    }

    /// The tensors, and where they lie.
    #[must_use]
    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The folder that holds what lies beside the weights.
    #[must_use]
    pub(crate) fn folder(&self) -> &Path {
        self.checkpoint.folder()
    }

    /// The names by which a shard's `qera.model` may mean this model.
    #[must_use]
    pub(crate) fn model_names(&self) -> &[String] {
        &self.model_names
    }

    /// Tensors that are not corrected although they might be linear layers, with the reason.
    #[must_use]
    pub(crate) fn passed_over(&self) -> &[PassedOver] {
        &self.selected.passed_over
    }

    /// Why a module's weight is not corrected.
    #[must_use]
    pub(crate) fn why_passed_over(&self, module: &str) -> Option<Why> {
        let tensor = tensor_of(module);
        let all = self.passed_over();
        // The list is sorted as the checkpoint's tensors are: by name.
        let found = all.binary_search_by(|of| of.tensor.cmp(&tensor)).ok()?;
        Some(all[found].why)
    }

    /// The number of all parameters of the model.
    #[must_use]
    pub(crate) fn parameters(&self) -> u64 {
        let numbers = |tensor: &Tensor| tensor.shape.iter().map(|&n| n as u64).product::<u64>();
        self.checkpoint.tensors.values().map(numbers).sum()
    }

    /// What the shards said of the model.
    #[must_use]
    pub(crate) const fn recording(&self) -> &Recording {
        &self.recording
    }

    /// The class that serves the model.
    #[must_use]
    pub(crate) const fn serving(&self) -> &ServingClass {
        &self.serving
    }

    /// What is known about the kind of model, in words.
    #[must_use]
    pub(crate) fn described(&self) -> Option<String> {
        self.architectures.described()
    }

    /// The family of the model's layers in GGUF; `None` where its kind is not listed.
    #[must_use]
    pub(crate) fn family(&self) -> Option<&'static Family> {
        let kinds = self.checkpoint.config.kinds();
        kinds.into_iter().find_map(Family::of_model_type)
    }

    /// The kinds of the model and of its parts, from config.json.
    #[must_use]
    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.checkpoint.config.kinds()
    }

    /// Whether the checkpoint is a GGUF.
    #[must_use]
    pub(crate) fn is_of_gguf(&self) -> bool {
        self.checkpoint.is_gguf
    }

    /// Modules of the checkpoint that the serving class does not have, with everything beneath
    /// them.
    #[must_use]
    pub(crate) fn modules_not_served(&self) -> BTreeSet<String> {
        let tensors = self.checkpoint.tensors.keys();
        let modules = tensors.filter_map(|tensor| Some(tensor.rsplit_once('.')?.0));
        let is_served = |module: &&str| {
            let (known, recording) = (&self.architectures, &self.recording);
            self.serving.name_of(module, known, recording).is_some()
        };
        let (served, others): (BTreeSet<&str>, BTreeSet<&str>) = modules.partition(is_served);
        // The shortest prefix beneath which no served module lies.
        let is_bare = |begin: &&str| {
            let mut near = served
                .range(*begin..)
                .take_while(|name| name.starts_with(begin));
            !near.any(|name| match_start(begin, name).is_some())
        };
        let bare = others.into_iter().filter_map(|module| {
            let ends = module.match_indices('.').map(|(end, _)| end);
            let mut begins = ends.chain([module.len()]).map(|end| &module[..end]);
            begins.find(is_bare).map(str::to_owned)
        });
        bare.collect()
    }

    /// The modules of the serving class that have a tensor, or a part that has one.
    #[must_use]
    pub(crate) fn served_modules(&self) -> BTreeSet<String> {
        let mut modules = BTreeSet::new();
        for tensor in self.checkpoint.tensors.keys() {
            let (module, _) = tensor.rsplit_once('.').unwrap_or(("", tensor));
            let served = self
                .serving
                .name_of(module, &self.architectures, &self.recording);
            let served = served.unwrap_or_default();
            let ends = served.match_indices('.').map(|(end, _)| end);
            modules.extend(ends.map(|end| served[..end].to_owned()));
            modules.insert(served);
        }
        modules
    }

    /// A file beside the model that is not read, although its name suggests that it would be.
    #[must_use]
    pub(crate) fn stray(&self) -> Option<&str> {
        self.checkpoint.stray.as_deref()
    }

    /// The format in which W~ is stored.
    #[must_use]
    pub(crate) fn format(&self) -> WeightFormat {
        match &self.given {
            Some(of) => of.given.format(),
            None => WeightFormat::of(self.quantizer),
        }
    }

    /// The W~ that the user gave; `None` where it is made.
    #[must_use]
    pub(crate) const fn given(&self) -> Option<&GivenLayers> {
        self.given.as_ref()
    }

    /// The modules of the model that have a weight, selected or not.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &str> {
        let tensors = self.checkpoint.tensors.keys();
        tensors.filter_map(|tensor| module_of(tensor))
    }

    /// Whether the model has a module of this name, selected or not.
    #[must_use]
    pub(crate) fn has_module(&self, module: &str) -> bool {
        self.checkpoint.tensors.contains_key(&tensor_of(module))
    }

    /// Identifies the input of a listed linear layer, selected or not: equal for layers that read
    /// the same tensor.
    #[must_use]
    pub(crate) fn input_of(&self, module: &str) -> Option<String> {
        self.architectures.input_of(module)
    }

    /// Width of the input of a linear layer of the model, selected or not.
    #[must_use]
    pub(crate) fn in_features(&self, module: &str) -> Option<usize> {
        let [rows, columns] = self.checkpoint.tensors.get(&tensor_of(module))?.shape[..] else {
            return None;
        };
        let listed = self.recording.linears.listed(module);
        let transposed = listed.and_then(|of| of.transposed);
        let transposed = transposed.or_else(|| self.architectures.is_transposed(module));
        Some(match transposed {
            Some(true) => rows,
            _ => columns,
        })
    }

    /// Groups the layers into sites.
    ///
    /// # Errors
    /// [`UnequalWidths`] naming both layers, when two that shall share an input differ in
    /// in_features.
    pub(crate) fn join(
        &self,
        shares: &Shares,
        second_moment: SecondMomentKind,
    ) -> Result<Sites, UnequalWidths> {
        let known = Arc::clone(&self.architectures);
        Sites::group(self.layers(), shares, known, second_moment)
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
        let sites = self.join(shares, second_moment);
        sites.map_err(|e| refuse(self.path(), e.to_string()))
    }

    /// W (m x n) of a layer, by columns.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] with file, tensor, row and column of the first NaN or infinite weight.
    pub(crate) fn original(&self, layer: usize) -> Result<PageVec<f32>, Fatal> {
        self.layers()[layer].decode(&self.checkpoint)
    }

    /// Gives W~ of a layer to `each`, some columns at a time and in order.
    ///
    /// # Errors
    /// Any error of `each`, and those of [`original`](Self::original); [`Fatal::Solve`] where W~ is
    /// not made yet.
    pub(crate) fn quantized(
        &self,
        layer: usize,
        mut each: impl FnMut(&[f32]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        if let Some(given) = &self.given {
            return given.pieces(layer, |_, piece| each(piece));
        }
        if self.rounding().uses_rows() {
            return self.kept(layer, |packed| packed.pieces(|_, piece| each(piece)));
        }
        let mut weight = self.original(layer)?;
        self.layers()[layer].quantize(
            &self.checkpoint,
            &self.quantizer,
            &mut weight,
            |_, quantized| each(quantized),
        )
    }

    /// E = W - W~ of a layer, in the memory of W. W~ is what the base stores.
    ///
    /// Where W~ is the nearest level, the difference is exact in f32: W~ is 0, or W lies between
    /// half of it and twice of it (Sterbenz). (Q4_0 decides halves by an unrounded scale, so that a
    /// number of 24 bits may just miss.) Other roundings take W~ farther from W, and a number of E
    /// is off by half of its own last place, 6e-8 of it. Nothing needs more: the effect on f is
    /// below 1e-14 of the error without correction, which is the precision of f itself.
    ///
    /// # Errors
    /// E cannot be computed, as for [`quantized`](Self::quantized).
    pub(crate) fn error(
        &self,
        layer: usize,
        mut weight: PageVec<f32>,
    ) -> Result<PageVec<f32>, Fatal> {
        let mut subtract = |first: usize, piece: &[f32]| {
            let weight = weight[first..].iter_mut();
            weight.zip(piece).for_each(|(w, q)| *w -= q);
            Ok(())
        };
        if let Some(given) = &self.given {
            given.pieces(layer, subtract)?;
            return Ok(weight);
        }
        if self.rounding().uses_rows() {
            self.kept(layer, |packed| packed.pieces(&mut subtract))?;
            return Ok(weight);
        }
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

    /// The checkpoint's identity, whichever layers are selected.
    #[must_use]
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    /// BLAKE3 over name, type, shape and BLAKE3 of the bytes of the selected weights, in name
    /// order.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// BLAKE3 over name, type, shape and bytes of all tensors except the selected weights, in name
    /// order. For a GGUF it also covers what else the file holds, its metadata first.
    #[must_use]
    pub(crate) fn fingerprint_of_others(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        if let Some(source) = GgufSource::of(&self.checkpoint) {
            for entry in &source.metadata {
                hasher.update(entry.bytes);
            }
            let mut unread = source.tensors;
            unread.retain(|tensor| tensor.known.is_none());
            unread.sort_by(|a, b| a.name.cmp(&b.name));
            for SourceTensor {
                name,
                ne,
                type_number,
                bytes,
                ..
            } in unread
            {
                hasher.update(format!("{name}\0{type_number}\0{ne:?}\0").as_bytes());
                hasher.update(bytes.unwrap_or_default());
            }
        }
        for (name, tensor) in &self.checkpoint.tensors {
            if self.layer_of(name).is_none() {
                hasher.update(format!("{name}\0{}\0{:?}\0", tensor.dtype, tensor.shape).as_bytes());
                hasher.update(self.checkpoint.bytes(tensor));
            }
        }
        format!("blake3:{}", hasher.finalize().to_hex())
    }

    /// A selected module.
    #[must_use]
    pub(crate) fn layer(&self, module: &str) -> Option<&Layer> {
        let index = self.layer_of(&tensor_of(module))?;
        self.layers().get(index)
    }

    /// The layer that a tensor is the weight of.
    pub(crate) fn layer_of(&self, tensor: &str) -> Option<usize> {
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
    use crate::settings::Settings;
    use crate::settings::options::Options;
    use crate::weights::opening::Model;
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
        let settings = settings.unwrap();
        let mut recording = Recording::default();
        recording.linears.see("a.linear".into());
        recording.linears.see("a.conv".into());
        let model = Model::open(&settings).unwrap().unwrap();
        model.select(&settings, &recording).unwrap()
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
        let [conv] = weights.passed_over() else {
            panic!("{:?}", weights.passed_over());
        };
        assert_eq!(
            (conv.tensor.as_str(), conv.why),
            ("a.conv.weight", Why::NotTwoDimensional)
        );
        assert_eq!(weights.parameters(), 32);
        assert_eq!(weights.format().to_string(), "mxint2/4");
        assert_eq!(weights.in_features("a.linear"), Some(4));
        assert_eq!(weights.in_features("a.norm"), None);
        assert!(weights.has_module("a.norm") && !weights.has_module("a.linear.bias"));
        let mut bytes = Vec::new();
        for tensor in weights.model(|_| false).unwrap() {
            let before = bytes.len();
            weights
                .model_bytes(&tensor, |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
            assert_eq!(bytes.len() - before, tensor.plan.bytes(), "{tensor:?}");
        }
        // 1 in f32, eight times in each of four tensors.
        assert_eq!(bytes, [0, 0, 0x80, 0x3f].repeat(32));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
