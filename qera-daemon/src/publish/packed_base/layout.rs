//! Which layers are packed, and which stay whole: those for which engines have no kernel, and those
//! that an engine fuses with a layer that stays whole.

use std::collections::BTreeSet;

use qera_core::quantize::Grid;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::error::Fatal;
use crate::formats::compressed_tensors::scheme::{PackScheme, PackShape};
use crate::formats::safetensors::header::dtype_name;
use crate::publish::packed_base::fused::FusedGroups;
use crate::settings::dotted::last_part;
use crate::settings::weights::{is_classifier, is_embedding, is_head};
use crate::weights::Weights;
use crate::weights::layers::{Layer, module_of};

/// Last names of modules that choose experts, which engines do not quantize.
const ROUTERS: [&str; 3] = ["gate", "router", "shared_expert_gate"];
/// The output layer of a model whose checkpoint has none: the embedding stands in its place.
const HEAD: &str = "lm_head";

/// For each layer whether it is packed.
#[derive(Debug)]
pub(crate) struct PackedLayout {
    /// How layers are packed.
    pub(crate) scheme: PackScheme,
    /// Layers that are not packed, with the reason.
    pub(crate) whole: Vec<WholeLayer>,
    /// Whether each layer is packed.
    pub(crate) packed: Vec<bool>,
    /// The names that config.json lists as not packed: every linear layer that is not, selected or
    /// not.
    pub(crate) ignore: Vec<String>,
}

/// A layer whose W~ is stored as numbers among packed ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WholeLayer {
    /// The layer's name.
    pub(crate) layer: String,
    /// The reason.
    pub(crate) reason: String,
}

/// The sizes of the files.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct PackedFigures {
    /// Layers that are packed.
    pub(crate) layers: usize,
    /// Bits of each weight of these layers, with the scales.
    pub(crate) bits_per_weight: f64,
    /// Bits of each number of the whole model.
    pub(crate) bits_per_parameter: f64,
    /// Bytes of all tensors.
    pub(crate) bytes: u64,
}

impl PackedLayout {
    /// The layout of these layers.
    ///
    /// # Errors
    /// [`Fatal::Usage`] for a model that is not served in this form, naming what is in the way.
    pub(crate) fn new(weights: &Weights) -> Result<Self, Fatal> {
        let scheme = PackScheme::of(weights.grid()).map_err(|e| refuse(&e.to_string()))?;
        let layers = weights.layers();
        if let Some(layer) = layers.iter().find(|layer| layer.transposed) {
            return Err(refuse(&format!(
                "'{}' is stored [in_features, out_features] (Conv1D), and engines \
                 transpose such a weight when they load it, which they cannot do with a packed one",
                layer.name
            )));
        }
        if !weights.checkpoint().config.names_a_model() {
            return Err(refuse(&format!(
                "{}: has no config.json that says what the model is",
                weights.folder().display()
            )));
        }
        let linear = linear_modules(weights);
        let own_reason = |layer: &Layer| reason_of(&scheme, layer);
        let is_whole = |module: &String| {
            weights
                .layer(module)
                .is_none_or(|l| own_reason(l).is_some())
        };
        let (whole, others): (Vec<String>, Vec<String>) = linear.into_iter().partition(is_whole);
        let mut all_whole: BTreeSet<String> = whole.into_iter().collect();
        FusedGroups::of(weights).close(&mut all_whole, &others);
        let whole = layers
            .iter()
            .filter(|layer| all_whole.contains(&layer.name));
        let whole = whole.map(|layer| WholeLayer {
            layer: layer.name.clone(),
            reason: own_reason(layer)
                .unwrap_or_else(|| "engines fuse it with modules that are not packed".into()),
        });
        let whole: Vec<WholeLayer> = whole.collect();
        let packed = layers.iter().map(|layer| !all_whole.contains(&layer.name));
        let layout = Self {
            scheme,
            packed: packed.collect(),
            ignore: ignored(all_whole),
            whole,
        };
        layout.refuse_nothing_packed()?;
        Ok(layout)
    }

    fn refuse_nothing_packed(&self) -> Result<(), Fatal> {
        match (self.packed.contains(&true), self.whole.first()) {
            (false, Some(WholeLayer { layer, reason })) => Err(refuse(&format!(
                "no layer can be packed; '{layer}': {reason}"
            ))),
            _ => Ok(()),
        }
    }

    /// Bytes of a layer's W~ as it is packed.
    #[must_use]
    pub(crate) fn bytes_of(&self, weights: &Weights, index: usize) -> u64 {
        let layer = &weights.layers()[index];
        if self.packed[index] {
            let plans = self.scheme.plans(&layer.name, shape_of(layer));
            return plans.iter().map(|plan| plan.bytes() as u64).sum();
        }
        let numbers = layer.in_features * layer.out_features;
        (numbers * dtype_of_whole(weights, index).bitsize() / 8) as u64
    }

    /// The sizes of the files of these weights.
    #[must_use]
    pub(crate) fn figures(&self, weights: &Weights) -> PackedFigures {
        let (mut numbers, mut packed_bytes) = (0, 0);
        let layers = weights.layers().iter().enumerate();
        for (index, layer) in layers.filter(|(index, _)| self.packed[*index]) {
            packed_bytes += self.bytes_of(weights, index);
            numbers += layer.in_features as u64 * layer.out_features as u64;
        }
        let mut bytes = packed_bytes;
        for (name, tensor) in &weights.checkpoint().tensors {
            let layer = weights.layer_of(name);
            if layer.is_some_and(|layer| self.packed[layer]) {
                continue;
            }
            let dtype = layer.map_or(tensor.dtype, |layer| dtype_of_whole(weights, layer));
            let numbers: usize = tensor.shape.iter().product();
            bytes += (numbers * dtype.bitsize() / 8) as u64;
        }
        PackedFigures {
            layers: self.packed.iter().filter(|packed| **packed).count(),
            bits_per_weight: bits(packed_bytes, numbers),
            bits_per_parameter: bits(bytes, weights.parameters()),
            bytes,
        }
    }
}

/// The type that W~ of a layer which stays whole most likely needs.
fn dtype_of_whole(weights: &Weights, layer: usize) -> Dtype {
    match weights.grid() {
        Grid::Mxint(_) => dtype_name(weights.layers()[layer].dtype()),
        Grid::Int(_) | Grid::Q4_0(_) => Dtype::F32,
    }
}

fn bits(bytes: u64, numbers: u64) -> f64 {
    8.0 * bytes as f64 / numbers.max(1) as f64
}

/// A layer's shape.
pub(crate) const fn shape_of(layer: &Layer) -> PackShape {
    PackShape {
        in_features: layer.in_features,
        out_features: layer.out_features,
    }
}

/// Why a layer stays whole, apart from fusing.
fn reason_of(scheme: &PackScheme, layer: &Layer) -> Option<String> {
    let name = layer.name.as_str();
    if is_head(name) || is_embedding(name) || is_classifier(name) {
        return Some("output layers and embeddings stay whole".into());
    }
    if ROUTERS.contains(&last_part(name)) {
        return Some("engines do not quantize routers of experts".into());
    }
    (!scheme.holds(shape_of(layer))).then(|| {
        format!(
            "engines have no kernel for {} in, {} out in groups of {}",
            layer.in_features, layer.out_features, scheme.group_size
        )
    })
}

/// The modules whose weight has two dimensions.
fn linear_modules(weights: &Weights) -> Vec<String> {
    let tensors = weights.checkpoint().tensors.iter();
    let matrices = tensors.filter(|(_, tensor)| tensor.shape.len() == 2);
    let modules = matrices.filter_map(|(name, _)| module_of(name));
    modules.map(str::to_owned).collect()
}

/// The names as config.json lists them, without embeddings, which are no linear layers.
#[must_use]
pub(crate) fn ignored(whole: BTreeSet<String>) -> Vec<String> {
    let mut ignored: BTreeSet<String> = whole.into_iter().filter(|m| !is_embedding(m)).collect();
    ignored.insert(HEAD.into());
    ignored.into_iter().collect()
}

fn refuse(reason: &str) -> Fatal {
    Fatal::Usage(format!("--emit-base=compressed-tensors: {reason}"))
}
