//! Translates between a GGUF's `general.architecture` and a Hugging Face `model_type`: the names of
//! a block's linear layers, and the order of their rows. Paths of blocks and their prefixes are
//! those of [`Architecture`].

#[cfg(test)]
mod recorded;
mod table;

use crate::formats::model_config::TEXT_SCOPES;
use crate::settings::dotted::{fill, is_number, join, match_start};
use crate::settings::name_map::MapRule;
use crate::weights::architecture::Architecture;
use crate::weights::gguf::family::table::LISTED;
use crate::weights::gguf::rows::RowRule;

/// The ending of a module's weight, in both worlds.
const WEIGHT: &str = ".weight";
/// A block of a GGUF; `*` is its number.
const BLOCK: &str = "blk.*";
/// A GGUF's output layer; absent where it is the embedding.
const OUTPUT: &str = "output";
/// The name of the output layer in Hugging Face's causal classes, beside the base class.
const HEAD: &str = "lm_head";
/// A GGUF's embedding, which is also its output layer where it has no other.
const EMBEDDING: &str = "token_embd";

/// A listed family.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// The GGUF's `general.architecture`.
    architecture: &'static str,
    /// The values of Hugging Face's `model_type` that are converted to this architecture and have
    /// these names. All have the same prefix and the same path of blocks.
    model_types: &'static [&'static str],
    /// The linear layers of a block.
    layers: &'static [BlockLayer],
    /// Path of the embedding in the base class.
    embedding: &'static str,
}

/// A linear layer of a block, under both names.
#[derive(Debug, PartialEq, Eq)]
struct BlockLayer {
    /// Its Hugging Face path within the block.
    path: &'static str,
    /// Its name within the GGUF's block.
    tensor: &'static str,
    /// The order of its rows.
    rows: RowRule,
}

/// A linear layer in a GGUF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GgufLayer {
    /// The tensor of its weight.
    pub(crate) tensor: String,
    /// The number of its block.
    pub(crate) block: usize,
    /// The order of its rows.
    pub(crate) rows: RowRule,
}

impl Family {
    /// The family of a GGUF with this `general.architecture`. Several Hugging Face classes may be
    /// converted to one architecture (BERT's). Where the model_type is known,
    /// [`of_model_type`](Self::of_model_type) tells which is meant; the caller must then compare
    /// its [`architecture`](Self::architecture) with the file's.
    #[must_use]
    pub(crate) fn of_architecture(name: &str) -> Option<&'static Self> {
        LISTED.iter().find(|of| of.architecture == name)
    }

    /// All listed architectures.
    #[must_use]
    pub(crate) fn architectures() -> Vec<&'static str> {
        let mut all: Vec<_> = LISTED.iter().map(|of| of.architecture).collect();
        all.dedup();
        all
    }

    /// The family of a Hugging Face model.
    #[must_use]
    pub(crate) fn of_model_type(model_type: &str) -> Option<&'static Self> {
        let mut listed = LISTED.iter();
        listed.find(|of| of.model_types.contains(&model_type))
    }

    /// The family's `general.architecture` in a GGUF.
    #[must_use]
    pub(crate) const fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// The Hugging Face `model_type` that is assumed where a GGUF is all that there is of a model:
    /// modules have the names of its class. A model of another class with the same architecture
    /// (Mistral's is "llama") has the same names, and its linear layers are computed alike, but
    /// what is saved for it says this type.
    #[must_use]
    pub(crate) const fn model_type(&self) -> &'static str {
        self.model_types[0]
    }

    /// Whether the Hugging Face class stores its weights [in_features, out_features].
    #[must_use]
    pub(crate) fn is_conv1d(&self) -> bool {
        self.class().is_some_and(Architecture::is_conv1d)
    }

    /// The GGUF's layer for a module of the Hugging Face model. The module's name may have the
    /// prefix of a class with a head, or of a model with several parts before its text model, or
    /// none.
    #[must_use]
    pub(crate) fn tensor_of(&self, module: &str) -> Option<GgufLayer> {
        let architecture = self.class()?;
        let scopes = [&[""], TEXT_SCOPES].concat();
        architecture.prefixes(&scopes).iter().find_map(|prefix| {
            let base = match_start(prefix, module)?.rest;
            architecture.blocks().iter().find_map(|block| {
                let met = match_start(block, base)?;
                let [number] = met.stars[..] else {
                    return None;
                };
                let of = self.layers.iter().find(|of| of.path == met.rest)?;
                Some(GgufLayer {
                    tensor: format!("{}.{}{WEIGHT}", fill(BLOCK, &[number]), of.tensor),
                    block: block_number(number)?,
                    rows: of.rows,
                })
            })
        })
    }

    /// The tensor of the output layer, if this module is one and the model does not use the
    /// embedding in its place.
    #[must_use]
    pub(crate) fn output_of(&self, module: &str) -> Option<String> {
        let is_output = [HEAD, OUTPUT].contains(&module);
        is_output.then(|| format!("{OUTPUT}{WEIGHT}"))
    }

    /// The Hugging Face module of a linear layer's tensor, as the class with a head names it.
    #[must_use]
    pub(crate) fn module_of(&self, tensor: &str) -> Option<String> {
        let met = match_start(BLOCK, tensor.strip_suffix(WEIGHT)?)?;
        let [number] = met.stars[..] else {
            return None;
        };
        block_number(number)?;
        let of = self.layers.iter().find(|of| of.tensor == met.rest)?;
        let architecture = self.class()?;
        let block = architecture.blocks().first()?;
        let path = join(&fill(block, &[number]), of.path);
        Some(join(architecture.prefix(), &path))
    }

    /// Rules that map a GGUF's names to those of a checkpoint whose base class's paths have this
    /// prefix: one for each kind of layer, and for other weights that are multiplied with.
    #[must_use]
    pub(crate) fn map_rules_under(&self, prefix: &str) -> Vec<MapRule> {
        let blocks = self.class().map_or(&[][..], Architecture::blocks);
        let in_blocks = blocks.iter().flat_map(|block| {
            let path = join(prefix, block);
            let rule = move |of: &BlockLayer| {
                MapRule::prefix(&join(BLOCK, of.tensor), &join(&path, of.path))
            };
            self.layers.iter().map(rule)
        });
        let beside = [
            MapRule::prefix(EMBEDDING, &join(prefix, self.embedding)),
            MapRule::prefix(OUTPUT, HEAD),
        ];
        in_blocks.chain(beside).collect()
    }

    /// The listed architecture of the family's class.
    fn class(&self) -> Option<&'static Architecture> {
        Architecture::listed(self.model_type())
    }
}

/// Whether this is the name of a tensor in a GGUF's block, with or without its last part.
#[must_use]
pub(crate) fn is_gguf_name(name: &str) -> bool {
    let met = match_start(BLOCK, name);
    met.is_some_and(|met| is_number(met.stars[0]) && !met.rest.is_empty())
}

/// A block's number as it is written in a name.
fn block_number(part: &str) -> Option<usize> {
    let number = part.parse().ok()?;
    (is_number(part) && (part == "0" || !part.starts_with('0'))).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::model_config::ModelConfig;
    use crate::settings::name_map::NameMap;
    use crate::weights::architecture::Architectures;
    use crate::weights::gguf::rows::Heads;
    use std::collections::BTreeSet;

    #[test]
    fn names_go_there_and_back() {
        for family in LISTED {
            let rules = NameMap::new(
                true,
                family.map_rules_under(family.class().unwrap().prefix()),
            );
            for of in family.layers {
                let tensor = format!("blk.17.{}.weight", of.tensor);
                let module = family.module_of(&tensor).unwrap();
                assert!(module.ends_with(of.path), "{module}");
                let back = family.tensor_of(&module).unwrap();
                assert_eq!((&back.tensor, back.block), (&tensor, 17));
                assert_eq!(back.rows, of.rows);
                assert_eq!(rules.apply(&tensor), module);
                assert_eq!(rules.undo(&module), tensor.trim_end_matches(".weight"));
            }
        }
    }

    #[test]
    fn the_head_s_prefix_may_be_absent_or_a_part_s() {
        let llama = Family::of_model_type("llama").unwrap();
        for before in [
            "model.",
            "",
            "language_model.model.",
            "model.language_model.",
        ] {
            let module = format!("{before}layers.3.self_attn.q_proj");
            let expected = GgufLayer {
                tensor: "blk.3.attn_q.weight".into(),
                block: 3,
                rows: RowRule::RopePairs(Heads::Query),
            };
            assert_eq!(llama.tensor_of(&module), Some(expected), "{module}");
        }
        for other in [
            "vision_tower.layers.3.self_attn.q_proj",
            "model.layers.3.self_attn.q_norm",
            "model.layers.3.self_attn.q_proj.lora",
            "model.layers.x.self_attn.q_proj",
            "model.layers.03.self_attn.q_proj",
            "lm_head",
        ] {
            assert_eq!(llama.tensor_of(other), None, "{other}");
        }
        for other in [
            "blk.3.attn_q",
            "blk.3.attn_q.bias",
            "blk.x.attn_q.weight",
            "blk.3.attn_norm.weight",
            "blk.3.attn_q.weight.weight",
            "output.weight",
        ] {
            assert_eq!(llama.module_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_family_s_classes_have_one_prefix_one_path_of_blocks_and_these_layers() {
        let mut seen = BTreeSet::new();
        for family in LISTED {
            let class = family.class().unwrap();
            for model_type in family.model_types {
                assert!(seen.insert(model_type), "{model_type} is listed twice");
                let other = Architecture::listed(model_type).unwrap();
                assert_eq!(other.prefix(), class.prefix(), "{model_type}");
                assert_eq!(other.blocks(), class.blocks(), "{model_type}");
            }
            let [block] = class.blocks() else {
                panic!("{} has several kinds of blocks", family.architecture);
            };
            for of in family.layers {
                let path = fill(block, &["0"]);
                let known = family.model_types.iter().any(|model_type| {
                    let config = format!("{{\"model_type\":\"{model_type}\"}}");
                    let config = ModelConfig::parse(config.as_bytes()).unwrap();
                    Architectures::of(&config).lists(&join(&path, of.path))
                });
                assert!(known, "{}: {}", family.architecture, of.path);
            }
        }
    }

    #[test]
    fn what_is_not_listed_has_no_family() {
        for name in [
            "llama4", "apertus", "granite", "mistral3", "smollm3", "clip", "",
        ] {
            assert_eq!(Family::of_architecture(name), None, "{name}");
        }
        for name in ["llama4_text", "apertus", "granite", "t5", "opt", ""] {
            assert_eq!(Family::of_model_type(name), None, "{name}");
        }
        assert_eq!(
            Family::of_architecture("bert").unwrap().model_type(),
            "bert"
        );
        let roberta = Family::of_model_type("xlm-roberta").unwrap();
        assert_eq!(roberta.architecture(), "bert");
        let module = roberta.module_of("blk.0.attn_q.weight");
        let name = "roberta.encoder.layer.0.attention.self.query";
        assert_eq!(module.as_deref(), Some(name));
    }
}
