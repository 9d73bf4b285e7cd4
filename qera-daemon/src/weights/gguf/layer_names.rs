//! The names and row orders that the layers of a model have in a GGUF: in the GGUF that holds W~ or
//! W, or in one that a converter makes of a Hugging Face checkpoint of a listed family.

use serde::{Deserialize, Serialize};

use crate::formats::model_config::ModelConfig;
use crate::weights::Weights;
use crate::weights::gguf::family::Family;
use crate::weights::gguf::rows::{HeadCounts, RowError, RowOrder};
use crate::weights::given::tensor::GivenTensor;
use crate::weights::layers::{Layer, tensor_of};

/// The longest tensor name in bytes that llama.cpp takes, without the final NUL.
const NAME_MAX: usize = 63;
/// The length of the ending that a LoRA adds: `.lora_a`.
const ENDING: usize = 7;

/// A layer's place in a GGUF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GgufLayerPlace {
    /// The tensor of its weight.
    pub(crate) tensor: String,
    /// The order of its rows.
    #[serde(default, skip_serializing_if = "RowOrder::moves_nothing")]
    pub(crate) rows: RowOrder,
}

/// The places of all layers in a GGUF.
#[derive(Debug)]
pub(crate) struct GgufNames {
    /// The GGUF's `general.architecture`.
    pub(crate) architecture: &'static str,
    /// The place of each layer.
    pub(crate) layers: Vec<GgufLayerPlace>,
}

/// Why a layer has no place in a GGUF.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoPlace {
    /// The model is of no listed kind.
    #[error(
        "what a GGUF calls the layers of {kinds} is not known; known are models of the \
         architectures {known}"
    )]
    Kind {
        /// The kinds of the model's parts, or a phrase where they are unknown.
        kinds: String,
        /// The kinds that are listed.
        known: String,
    },
    /// A GGUF has no tensor for this layer alone.
    #[error(
        "'{layer}' is no tensor of its own in a GGUF of the architecture '{architecture}': leave \
         it out by --exclude"
    )]
    Layer {
        /// The layer's name.
        layer: String,
        /// The GGUF's architecture.
        architecture: &'static str,
    },
    /// The order of the layer's rows is not known.
    #[error("'{layer}': {error}")]
    Rows {
        /// The layer's name.
        layer: String,
        /// The reason.
        error: RowError,
    },
    /// The tensor's name is too long for llama.cpp.
    #[error("'{layer}': '{tensor}.lora_a' has more than {NAME_MAX} bytes, which llama.cpp refuses")]
    Long {
        /// The layer's name.
        layer: String,
        /// The tensor.
        tensor: String,
    },
}

impl GgufNames {
    /// The places of the selected layers.
    ///
    /// # Errors
    /// [`NoPlace`], which names the layer.
    pub(crate) fn of(weights: &Weights) -> Result<Self, NoPlace> {
        let given = weights.given();
        let given = given.and_then(|of| Some((of, of.given.architecture()?)));
        if let Some((given, architecture)) = given {
            let places = given.layers.iter().filter_map(|layer| match &layer.tensor {
                GivenTensor::Gguf(of) => Some(GgufLayerPlace {
                    tensor: of.name.clone(),
                    rows: of.rows(),
                }),
                GivenTensor::Packed(_) => None,
            });
            return Self::checked(architecture, weights.layers(), places.collect());
        }
        let family = family_of(&weights.checkpoint().config.kinds())?;
        let place = |layer: &Layer| place(weights, family, layer);
        let places = weights.layers().iter().map(place);
        let places = places.collect::<Result<Vec<_>, _>>()?;
        Self::checked(family.architecture(), weights.layers(), places)
    }

    fn checked(
        architecture: &'static str,
        of: &[Layer],
        layers: Vec<GgufLayerPlace>,
    ) -> Result<Self, NoPlace> {
        let mut all = of.iter().zip(&layers);
        match all.find(|(_, place)| place.tensor.len() + ENDING > NAME_MAX) {
            Some((layer, place)) => Err(NoPlace::Long {
                layer: layer.name.clone(),
                tensor: place.tensor.clone(),
            }),
            None => Ok(Self {
                architecture,
                layers,
            }),
        }
    }
}

/// The family of a model whose parts are of these kinds.
///
/// # Errors
/// [`NoPlace::Kind`].
pub(crate) fn family_of(kinds: &[&str]) -> Result<&'static Family, NoPlace> {
    let mut families = kinds.iter().copied().filter_map(Family::of_model_type);
    families.next().ok_or_else(|| NoPlace::Kind {
        kinds: match kinds {
            [] => "a model whose config.json does not say what it is".into(),
            _ => format!("'{}'", kinds.join("', '")),
        },
        known: Family::architectures().join(", "),
    })
}

/// The place that a converter gives to a layer of a Hugging Face model with this config.json.
/// `None` where the model is of no listed family, or a GGUF has no tensor for the layer alone.
///
/// # Errors
/// [`RowError`] where the order of its rows is not known.
pub(crate) fn place_by_config(
    config: &ModelConfig,
    module: &str,
    out_features: usize,
) -> Result<Option<GgufLayerPlace>, RowError> {
    let Ok(family) = family_of(&config.kinds()) else {
        return Ok(None);
    };
    let Some(of) = family.tensor_of(module) else {
        let rows = RowOrder::AsTheyLie;
        let tensor = family.output_of(module);
        return Ok(tensor.map(|tensor| GgufLayerPlace { tensor, rows }));
    };
    let heads = head_counts_of(config);
    let rows = RowOrder::new(of.rows, &heads, of.block, out_features)?;
    let tensor = of.tensor;
    Ok(Some(GgufLayerPlace { tensor, rows }))
}

/// The numbers of attention heads in config.json, for the part whose kind GGUF lists.
#[must_use]
pub(crate) fn head_counts_of(config: &ModelConfig) -> HeadCounts {
    let mut kinds = config.kinds().into_iter();
    let kind = kinds.find(|kind| Family::of_model_type(kind).is_some());
    HeadCounts::of_config(config, kind.unwrap_or_default())
}

/// The place of a layer of the checkpoint.
fn place(
    weights: &Weights,
    family: &'static Family,
    layer: &Layer,
) -> Result<GgufLayerPlace, NoPlace> {
    let no_place = || NoPlace::Layer {
        layer: layer.name.clone(),
        architecture: family.architecture(),
    };
    let of_rows = |error| NoPlace::Rows {
        layer: layer.name.clone(),
        error,
    };
    let checkpoint = weights.checkpoint();
    if !weights.is_of_gguf() {
        let place = place_by_config(&checkpoint.config, &layer.name, layer.out_features);
        return place.map_err(of_rows)?.ok_or_else(no_place);
    }
    let tensor = family.tensor_of(&layer.name).map(|of| of.tensor);
    let tensor = tensor.or_else(|| family.output_of(&layer.name));
    // The rows lie as they were read.
    let stored = checkpoint.tensors.get(&tensor_of(&layer.name));
    Ok(GgufLayerPlace {
        tensor: tensor.ok_or_else(no_place)?,
        rows: stored.map_or(RowOrder::AsTheyLie, |tensor| tensor.rows),
    })
}
