//! The names that mlx-lm has for a model's layers. It has one file of classes for each kind of
//! model (`mlx_lm/models`). Listed are those kinds in which every linear layer of a block has
//! Hugging Face's path, below `model.` and the base class's path of the block (as read in mlx-lm
//! 0.32.2).

use crate::settings::dotted::{fill, is_number, join, match_start};
use crate::weights::Weights;
use crate::weights::architecture::Architecture;
use crate::weights::layers::Layer;

/// Kinds of models with these names. OLMo, GPT-NeoX, Falcon, Bloom and MPT are not among them:
/// mlx-lm has other names for them, or no class.
const LISTED: [&str; 15] = [
    "cohere",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "granite",
    "llama",
    "mistral",
    "mixtral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "stablelm",
    "starcoder2",
];
/// The prefix of the base class's paths.
const MODEL: &str = "model";
/// The output layer, which stands beside the base class.
const HEAD: &str = "lm_head";
/// mlx-lm has the experts of a block as one tensor of three dimensions.
const EXPERTS: &str = "experts";

/// A layer's place in mlx-lm's class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MlxPlace {
    /// The layer's name.
    pub(crate) name: String,
    /// The layer's entry in `keys`: its path within its block, or its name where it is in no block.
    pub(crate) key: String,
}

/// The places of all layers in mlx-lm's class.
#[derive(Debug)]
pub(crate) struct MlxNames {
    /// The number of the model's blocks.
    pub(crate) blocks: usize,
    /// The place of each layer.
    pub(crate) layers: Vec<MlxPlace>,
}

/// Why a layer has no name in mlx-lm.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoMlxName {
    /// The model is of no listed kind.
    #[error("what mlx-lm calls the layers of {kind} is not known; known are {known}")]
    Kind {
        /// The model's kind, or a phrase where it is unknown.
        kind: String,
        /// The kinds that are listed.
        known: String,
    },
    /// mlx-lm has no linear layer for this one.
    #[error(
        "'{layer}' is no linear layer of a model of the kind '{kind}' in mlx-lm: leave it out by \
         --exclude"
    )]
    Layer {
        /// The layer's name.
        layer: String,
        /// The model's kind.
        kind: String,
    },
}

impl MlxNames {
    /// The names of the selected layers.
    ///
    /// # Errors
    /// [`NoMlxName`], which names the layer.
    pub(crate) fn of(weights: &Weights) -> Result<Self, NoMlxName> {
        let kinds = weights.kinds();
        let class = check_kind(&kinds)?;
        let kind = kinds.first().copied().unwrap_or_default();
        let place = |layer: &Layer| {
            let place = place(class, &layer.name);
            place.ok_or_else(|| NoMlxName::Layer {
                layer: layer.name.clone(),
                kind: kind.to_owned(),
            })
        };
        let layers = weights.layers().iter().map(place);
        let blocks = weights
            .modules()
            .filter_map(|module| block_of(class, module));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            blocks: blocks.max().map_or(0, |last| last.saturating_add(1)),
        })
    }
}

/// The class of a model whose parts are of these kinds. A model with several parts has other names.
///
/// # Errors
/// [`NoMlxName::Kind`].
pub(crate) fn check_kind(kinds: &[&str]) -> Result<&'static Architecture, NoMlxName> {
    let kind = match kinds {
        [kind] if LISTED.contains(kind) => Architecture::listed(kind),
        _ => None,
    };
    kind.ok_or_else(|| NoMlxName::Kind {
        kind: match kinds {
            [] => "a model whose config.json does not say what it is".into(),
            _ => format!("'{}'", kinds.join("', '")),
        },
        known: LISTED.join(", "),
    })
}

/// The place of a module of the checkpoint.
fn place(class: &Architecture, module: &str) -> Option<MlxPlace> {
    if module == HEAD {
        let name = HEAD.to_owned();
        return Some(MlxPlace {
            key: name.clone(),
            name,
        });
    }
    let InBlock { number, path } = in_block(class, module)?;
    if path.split('.').any(|part| part == EXPERTS) {
        return None;
    }
    let block = class.blocks().first()?;
    Some(MlxPlace {
        name: join(&join(MODEL, &fill(block, &[number])), path),
        key: path.to_owned(),
    })
}

/// A module within a block.
struct InBlock<'m> {
    number: &'m str,
    path: &'m str,
}

fn in_block<'m>(class: &Architecture, module: &'m str) -> Option<InBlock<'m>> {
    let prefixes = class.prefixes(&[""]);
    let block = class.blocks().first()?;
    prefixes.iter().find_map(|prefix| {
        let base = match_start(prefix, module)?.rest;
        let met = match_start(block, base)?;
        let [number] = met.stars[..] else {
            return None;
        };
        (is_number(number) && !met.rest.is_empty()).then_some(InBlock {
            number,
            path: met.rest,
        })
    })
}

fn block_of(class: &Architecture, module: &str) -> Option<usize> {
    in_block(class, module)?.number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kind: &str, module: &str) -> Option<[String; 2]> {
        let class = check_kind(&[kind]).unwrap();
        place(class, module).map(|of| [of.name, of.key])
    }

    #[test]
    fn names_are_those_of_the_base_class_below_model() {
        for (kind, module, name, key) in [
            (
                "llama",
                "model.layers.3.self_attn.q_proj",
                "model.layers.3.self_attn.q_proj",
                "self_attn.q_proj",
            ),
            (
                "llama",
                "layers.3.mlp.up_proj",
                "model.layers.3.mlp.up_proj",
                "mlp.up_proj",
            ),
            (
                "gpt2",
                "transformer.h.3.attn.c_attn",
                "model.h.3.attn.c_attn",
                "attn.c_attn",
            ),
            ("qwen2", "lm_head", "lm_head", "lm_head"),
            (
                "mixtral",
                "model.layers.0.block_sparse_moe.gate",
                "model.layers.0.block_sparse_moe.gate",
                "block_sparse_moe.gate",
            ),
        ] {
            assert_eq!(
                named(kind, module),
                Some([name.into(), key.into()]),
                "{module}"
            );
        }
        for (kind, module) in [
            ("mixtral", "model.layers.0.block_sparse_moe.experts.1.w1"),
            ("llama", "model.layers.x.mlp.up_proj"),
            ("llama", "model.layers.3"),
            ("llama", "vision.layers.3.mlp.up_proj"),
        ] {
            assert_eq!(named(kind, module), None, "{module}");
        }
    }

    #[test]
    fn what_mlx_lm_calls_otherwise_is_named() {
        for kind in LISTED {
            let class = check_kind(&[kind]).unwrap();
            assert_eq!(class.blocks().len(), 1, "{kind}");
            assert_eq!(
                block_of(
                    class,
                    &format!("{}.7.x", &class.blocks()[0].trim_end_matches(".*"))
                ),
                Some(7)
            );
        }
        for (kinds, said) in [
            (
                &["falcon"][..],
                "of 'falcon' is not known; known are cohere, ",
            ),
            (&["llava", "llama"], "of 'llava', 'llama' is not known"),
            (&[], "config.json does not say what it is"),
        ] {
            let error = check_kind(kinds).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
