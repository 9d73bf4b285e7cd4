//! What is known of a model by its `model_type`: which linear layers a block has, which of them
//! read one tensor, whether their weights are stored transposed, and which class serves it.

mod table;

use crate::formats::model_config::ModelConfig;
use crate::settings::dotted::{fill, join, match_start};
use crate::settings::weights::is_head;
use crate::weights::architecture::table::LISTED;

/// Loads the base class, whose names have no prefix.
const BASE_CLASS: &str = "AutoModel";

/// A listed architecture; paths are those of the base class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Architecture {
    /// The values of `model_type` in `config.json` that this entry covers.
    model_types: &'static [&'static str],
    /// The prefix that the class with a head has before the base class's paths.
    prefix: &'static str,
    /// Paths of the blocks; `*` is a number.
    blocks: &'static [&'static str],
    /// The block's linear layers, in groups that read the same tensor; `*` is an expert or a part
    /// of the block.
    inputs: &'static [&'static [&'static str]],
    /// Whether the layers are Conv1D, stored [in_features, out_features].
    transposed: bool,
    /// How the model is loaded; `None` where no automatic class with these names is known.
    serving: Option<Serving>,
    /// Where the entry comes from.
    origin: Origin,
}

/// The class that serves a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Serving {
    /// The class of Transformers.
    pub(crate) class: &'static str,
    /// The task as PEFT calls it.
    pub(crate) task_type: &'static str,
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Compared with the class of Transformers, by the stage `models`.
    Transformers,
    /// Read in the source of that class, which was not run.
    Source,
    /// Taken from gguf's tensor map; the pinned Transformers lacks the class, and it was not run.
    TensorMap,
}

/// The listed architectures of a model's parts. A model without parts has at most one.
#[derive(Debug, Default)]
pub(crate) struct Architectures {
    parts: Vec<ModelPart>,
}

/// A listed part of a model.
#[derive(Debug)]
pub(crate) struct ListedPart<'a> {
    /// The part's `model_type`.
    pub(crate) model_type: &'a str,
    /// Possible prefixes of the base class's paths, the longest first.
    pub(crate) prefixes: &'a [String],
}

/// A listed architecture, and its place in the model.
#[derive(Debug)]
struct ModelPart {
    /// Possible prefixes of the base class's paths, the longest first.
    prefixes: Vec<String>,
    /// Whether this part is the whole model.
    whole: bool,
    model_type: String,
    architecture: &'static Architecture,
}

/// A layer's place in a listed architecture.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// Identifies the input: the path of the first of the layers that read the same tensor.
    input: String,
    transposed: bool,
}

impl Architectures {
    /// The listed architectures that a configuration names.
    #[must_use]
    pub(crate) fn of(config: &ModelConfig) -> Self {
        let parts = config.parts().into_iter().filter_map(|part| {
            let architecture = Architecture::listed(part.model_type)?;
            Some(ModelPart {
                prefixes: architecture.prefixes(part.scopes),
                whole: part.scopes == [""],
                model_type: part.model_type.to_owned(),
                architecture,
            })
        });
        Self {
            parts: parts.collect(),
        }
    }

    /// Identifies the input of a layer: equal for layers that read the same tensor. `None` where
    /// the layer is not listed.
    #[must_use]
    pub(crate) fn input_of(&self, module: &str) -> Option<String> {
        self.place(module).map(|place| place.input)
    }

    /// Whether a layer's weight is stored [in_features, out_features]; `None` where the layer is
    /// not listed.
    #[must_use]
    pub(crate) fn is_transposed(&self, module: &str) -> Option<bool> {
        self.place(module).map(|place| place.transposed)
    }

    /// Whether this module is a listed layer.
    #[must_use]
    pub(crate) fn lists(&self, module: &str) -> bool {
        self.place(module).is_some()
    }

    /// The listed parts, the whole model first.
    pub(crate) fn parts(&self) -> impl Iterator<Item = ListedPart<'_>> {
        self.parts.iter().map(|part| ListedPart {
            model_type: &part.model_type,
            prefixes: &part.prefixes,
        })
    }

    /// How the whole model is loaded.
    #[must_use]
    pub(crate) fn serving(&self) -> Option<Serving> {
        self.whole()?.architecture.serving
    }

    /// Whether a tensor's name begins with the prefix that the class with a head puts before the
    /// base class's names.
    #[must_use]
    pub(crate) fn has_head_prefix(&self, tensor: &str) -> bool {
        let prefix = self.whole().map_or("", |part| part.architecture.prefix);
        !prefix.is_empty() && match_start(prefix, tensor).is_some_and(|met| !met.rest.is_empty())
    }

    /// The name that the class of [`serving`](Self::serving) has for a module of a checkpoint.
    /// `headed` says whether a class with a head saved that checkpoint, or the base class. `None`
    /// where the serving class has no such module.
    #[must_use]
    pub(crate) fn served_name(&self, module: &str, headed: bool) -> Option<String> {
        let architecture = self.whole()?.architecture;
        let (prefix, class) = (architecture.prefix, architecture.serving?.class);
        let base = match (prefix.is_empty(), headed) {
            (true, _) => architecture.is_beside_a_block(module).then_some(module),
            (false, true) => match_start(prefix, module).map(|met| met.rest),
            (false, false) => Some(module),
        };
        match base {
            Some(base) if class == BASE_CLASS => Some(base.to_owned()),
            Some(base) => Some(join(prefix, base)),
            // The module stands beside the base model. Of heads, the class has only its own.
            None => (class != BASE_CLASS && is_head(module)).then(|| module.to_owned()),
        }
    }

    /// What is known about this model, in words; `None` where nothing is.
    #[must_use]
    pub(crate) fn described(&self) -> Option<String> {
        let parts = self.parts.iter().map(|part| {
            let origin = match part.architecture.origin {
                Origin::Transformers => "",
                Origin::Source => " (from its class's source, not run)",
                Origin::TensorMap => " (from gguf's tensor map, not run)",
            };
            format!("{}{origin}", part.model_type)
        });
        let all: Vec<String> = parts.collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    fn whole(&self) -> Option<&ModelPart> {
        self.parts.iter().find(|part| part.whole)
    }

    fn place(&self, module: &str) -> Option<Place> {
        self.parts.iter().find_map(|part| part.place(module))
    }
}

impl ModelPart {
    fn place(&self, module: &str) -> Option<Place> {
        self.prefixes.iter().find_map(|prefix| {
            let base = match_start(prefix, module)?.rest;
            let input = self.architecture.input_of(base)?;
            Some(Place {
                input: join(prefix, &input),
                transposed: self.architecture.transposed,
            })
        })
    }
}

impl Architecture {
    /// The entry for this `model_type`.
    #[must_use]
    pub(crate) fn listed(model_type: &str) -> Option<&'static Self> {
        let mut listed = LISTED.iter();
        listed.find(|of| of.model_types.contains(&model_type))
    }

    /// Whether the layers are Conv1D, stored [in_features, out_features].
    #[must_use]
    pub(crate) const fn is_conv1d(&self) -> bool {
        self.transposed
    }

    /// The prefix that the class with a head puts before the base class's paths.
    #[must_use]
    pub(crate) const fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// Paths of the blocks in the base class; `*` is a number.
    #[must_use]
    pub(crate) const fn blocks(&self) -> &'static [&'static str] {
        self.blocks
    }

    /// Possible prefixes of the base class's paths, the longest first, where the model stands in
    /// one of these scopes.
    #[must_use]
    pub(crate) fn prefixes(&self, scopes: &[&str]) -> Vec<String> {
        let both = |scope: &&str| [join(scope, self.prefix), (*scope).to_owned()];
        let mut prefixes: Vec<String> = scopes.iter().flat_map(both).collect();
        prefixes.sort_by_key(|prefix| core::cmp::Reverse(prefix.len()));
        prefixes.dedup();
        prefixes
    }

    /// Whether a module's path begins like a block's.
    fn is_beside_a_block(&self, module: &str) -> bool {
        let first = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
        self.blocks
            .iter()
            .any(|block| first(block) == first(module))
    }

    /// The path of the first layer that reads what this one reads.
    fn input_of(&self, base: &str) -> Option<String> {
        self.blocks.iter().find_map(|block| {
            let in_block = match_start(block, base)?;
            let layer = in_block.rest;
            let path = fill(block, &in_block.stars);
            self.inputs.iter().find_map(|input| {
                let met = input.iter().find_map(|member| {
                    match_start(member, layer).filter(|met| met.rest.is_empty())
                })?;
                Some(join(&path, &fill(input[0], &met.stars)))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: &str) -> Architectures {
        Architectures::of(&ModelConfig::parse(config.as_bytes()).unwrap())
    }

    fn same(config: &str, a: &str, b: &str) -> bool {
        let known = of(config);
        known.lists(a) && known.lists(b) && known.input_of(a) == known.input_of(b)
    }

    #[test]
    fn layers_that_are_given_one_tensor_are_joined_and_no_others() {
        let llama = r#"{"model_type":"llama"}"#;
        let layer = |name: &str| format!("model.layers.3.{name}");
        let joined = |a: &str, b: &str| same(llama, &layer(a), &layer(b));
        assert!(joined("self_attn.q_proj", "self_attn.v_proj"));
        assert!(joined("mlp.gate_proj", "mlp.up_proj"));
        assert!(!joined("self_attn.q_proj", "self_attn.o_proj"));
        assert!(!joined("mlp.gate_proj", "mlp.down_proj"));
        assert!(!same(
            llama,
            "model.layers.0.mlp.up_proj",
            "model.layers.1.mlp.up_proj"
        ));
        let experts = |a: &str, b: &str| {
            let path = "model.layers.0.block_sparse_moe.experts";
            same(
                r#"{"model_type":"mixtral"}"#,
                &format!("{path}.{a}"),
                &format!("{path}.{b}"),
            )
        };
        assert!(experts("1.w1", "1.w3"));
        assert!(!experts("1.w1", "2.w1") && !experts("1.w1", "1.w2"));
    }

    #[test]
    fn key_and_value_of_a_cross_attention_do_not_read_what_its_query_reads() {
        let bart = r#"{"model_type":"bart"}"#;
        let layer = |name: &str| format!("model.decoder.layers.0.encoder_attn.{name}");
        assert!(same(bart, &layer("k_proj"), &layer("v_proj")));
        assert!(!same(bart, &layer("k_proj"), &layer("q_proj")));
    }

    #[test]
    fn what_is_not_listed_is_not_known() {
        for config in [
            "{}",
            r#"{"model_type":"blip_text_model"}"#,
            r#"{"model_type":"eva02"}"#,
        ] {
            let known = of(config);
            for module in [
                "model.layers.0.self_attn.q_proj",
                "encoder.layer.0.crossattention.self.key",
                "blocks.0.mlp.w1",
            ] {
                assert!(!known.lists(module), "{config} {module}");
            }
            assert_eq!((known.described(), known.serving()), (None, None));
        }
        // Another part of a listed model has none of its blocks.
        let llava = r#"{"model_type":"llava","text_config":{"model_type":"llama"}}"#;
        let vision = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj";
        assert!(!of(llava).lists(vision));
        for text in ["language_model.model", "model.language_model"] {
            let path = format!("{text}.layers.0.self_attn.q_proj");
            assert!(of(llava).lists(&path), "{path}");
        }
        assert_eq!(of(llava).served_name("language_model.model.x", true), None);
    }

    #[test]
    fn conv1d_is_found_wherever_its_family_stands() {
        let cases = [
            (r#"{"model_type":"gpt2"}"#, "h.0.attn.c_proj"),
            (r#"{"model_type":"gpt2"}"#, "transformer.h.0.attn.c_proj"),
            (
                r#"{"model_type":"vision-encoder-decoder","decoder":{"model_type":"gpt2"}}"#,
                "decoder.transformer.h.0.crossattention.q_attn",
            ),
            (
                r#"{"model_type":"decision_transformer"}"#,
                "encoder.h.0.mlp.c_fc",
            ),
            (
                r#"{"model_type":"x","text_config":{"model_type":"gpt2"}}"#,
                "language_model.transformer.h.0.mlp.c_fc",
            ),
        ];
        for (config, module) in cases {
            assert_eq!(of(config).is_transposed(module), Some(true), "{config}");
        }
        let bigcode = of(r#"{"model_type":"gpt_bigcode"}"#);
        assert_eq!(
            bigcode.is_transposed("transformer.h.0.attn.c_attn"),
            Some(false)
        );
    }

    #[test]
    fn the_serving_class_decides_the_prefix() {
        let bloom = of(r#"{"model_type":"bloom"}"#);
        for (name, headed) in [("h.0.mlp.x", false), ("transformer.h.0.mlp.x", true)] {
            let served = bloom.served_name(name, headed);
            assert_eq!(served.as_deref(), Some("transformer.h.0.mlp.x"), "{name}");
        }
        assert!(bloom.has_head_prefix("transformer.h.0") && !bloom.has_head_prefix("h.0"));
        assert_eq!(
            bloom.served_name("lm_head", true).as_deref(),
            Some("lm_head")
        );
        let bert = of(r#"{"model_type":"bert"}"#);
        for (name, headed) in [("bert.encoder.x", true), ("encoder.x", false)] {
            let served = bert.served_name(name, headed);
            assert_eq!(served.as_deref(), Some("encoder.x"), "{name}");
        }
        assert_eq!(
            bert.served_name("cls.predictions.transform.dense", true),
            None
        );
        assert_eq!(bert.serving().unwrap().task_type, "FEATURE_EXTRACTION");
        let t5 = of(r#"{"model_type":"t5"}"#);
        assert_eq!(
            t5.served_name("decoder.x", false).as_deref(),
            Some("decoder.x")
        );
        // Heads that the class for the task does not have.
        assert_eq!(t5.served_name("classification_head.dense", false), None);
        assert_eq!(bloom.served_name("score", true), None);
    }

    #[test]
    fn every_model_type_is_listed_once() {
        let mut seen = std::collections::BTreeSet::new();
        for model_type in LISTED.iter().flat_map(|of| of.model_types) {
            assert!(seen.insert(model_type), "{model_type}");
        }
        let qwen3 = of(r#"{"model_type":"qwen3"}"#).described().unwrap();
        assert!(qwen3.contains("not run"), "{qwen3}");
    }
}
