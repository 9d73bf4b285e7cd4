//! How recorded names relate to the checkpoint's. The recorded model may be a part of the one that
//! was saved (`h.0` for `transformer.h.0`), may contain it, or may be wrapped (`_orig_mod.`). A
//! prefix is added or removed where it is the only one under which every key meets a weight of its
//! width. Where the keys are a GGUF's names, the model's family translates them.

use std::collections::BTreeSet;

use crate::settings::dotted::{join, starred};
use crate::settings::name_map::{MapRule, NameMap};
use crate::settings::weights::Selection;

use crate::weights::gguf::family::{Family, is_gguf_name};
use crate::weights::opening::Model;
use crate::weights::serving::{COMPILED, unwrapped};

const WEIGHT: &str = ".weight";

/// A module whose input was recorded.
#[derive(Debug, Clone)]
pub(crate) struct RecordedModule {
    /// The module's recorded name.
    pub(crate) name: String,
    /// Width of its rows.
    pub(crate) in_features: usize,
}

/// The result of the search for a map.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// There is one map under which every name meets a weight of its width.
    Found(NameMap),
    /// No prefix works.
    Unknown,
    /// Several prefixes work.
    Ambiguous(Vec<NameMap>),
}

/// Finds the map for these modules. Modules that the selection excludes do not count.
#[must_use]
pub(crate) fn find(model: &Model, selection: &Selection, modules: &[RecordedModule]) -> Naming {
    let counted = modules.iter().filter(|of| !selection.excludes(&of.name));
    let counted: Vec<&RecordedModule> = counted.collect();
    if counted.is_empty() {
        return Naming::Unknown;
    }
    if counted.iter().all(|of| model.shape(&of.name).is_some()) {
        return Naming::Found(NameMap::default());
    }
    if counted.iter().any(|of| is_gguf_name(&of.name)) {
        return chosen(of_gguf(model, selection, &counted));
    }
    let suffix = counted.iter().all(|of| of.name.ends_with(WEIGHT));
    let Some(first) = counted.first().map(|of| of.name.as_str()) else {
        return Naming::Unknown;
    };
    let first = first
        .strip_suffix(WEIGHT)
        .filter(|_| suffix)
        .unwrap_or(first);
    let fits = |map: &NameMap| {
        let meets = |of: &&RecordedModule| meets(model, &map.apply(&of.name), of.in_features);
        counted.iter().all(meets)
    };
    let rules = prefixes(model, first).into_iter().map(|rule| vec![rule]);
    let maps = rules
        .chain(suffix.then(Vec::new))
        .map(|rules| NameMap::new(suffix, rules));
    chosen(maps.filter(fits).collect())
}

fn chosen(mut fitting: Vec<NameMap>) -> Naming {
    match fitting.len() {
        0 => Naming::Unknown,
        1 => Naming::Found(fitting.remove(0)),
        _ => Naming::Ambiguous(fitting),
    }
}

/// Whether it is known what a GGUF calls the layers of this model.
#[must_use]
pub(crate) fn has_family(model: &Model) -> bool {
    let mut parts = model.architectures().parts();
    parts.any(|part| Family::of_model_type(part.model_type).is_some())
}

/// The maps of a family under which a GGUF's names, if they are modules of the checkpoint, meet
/// weights of their widths. Other names do not count: a GGUF has tensors that are no layers here,
/// as experts and an output layer that is the embedding.
fn of_gguf(model: &Model, selection: &Selection, counted: &[&RecordedModule]) -> Vec<NameMap> {
    let mut in_blocks = counted.iter().filter(|of| is_gguf_name(&of.name));
    let suffix = in_blocks.all(|of| of.name.ends_with(WEIGHT));
    let fits = |map: &NameMap| {
        let modules = counted.iter().filter_map(|of| {
            let module = map.apply(&of.name);
            let counts = model.shape(&module).is_some() && !selection.excludes(&module);
            counts.then(|| meets(model, &module, of.in_features))
        });
        let met: Vec<bool> = modules.collect();
        !met.is_empty() && met.into_iter().all(|met| met)
    };
    let maps = model.architectures().parts().flat_map(|part| {
        let family = Family::of_model_type(part.model_type);
        let under = move |of: &'static Family| {
            let rules = move |prefix: &String| of.map_rules_under(prefix);
            part.prefixes.iter().map(rules)
        };
        family.into_iter().flat_map(under)
    });
    let maps = maps.map(|rules| NameMap::new(suffix, rules));
    maps.filter(fits).collect()
}

/// Whether a weight of the checkpoint can take rows of this width.
fn meets(model: &Model, module: &str, in_features: usize) -> bool {
    let shape = model.shape(module);
    shape.is_some_and(|shape| shape.len() == 2 && shape.contains(&in_features))
}

/// Every prefix that makes a name one of the checkpoint's by being added or removed.
fn prefixes(model: &Model, name: &str) -> BTreeSet<MapRule> {
    let mut rules = BTreeSet::new();
    let inner = unwrapped(name);
    let outer = |inner: &str| name[..name.len() - inner.len()].trim_end_matches('.');
    let starts = inner.match_indices('.').map(|(at, _)| at + 1);
    for inner in core::iter::once(0).chain(starts).map(|at| &inner[at..]) {
        if inner.len() < name.len() && model.shape(inner).is_some() {
            rules.insert(MapRule::prefix(outer(inner), ""));
        }
    }
    for module in model.modules() {
        let before = module
            .strip_suffix(inner)
            .and_then(|of| of.strip_suffix('.'));
        if let Some(before) = before {
            rules.insert(MapRule::prefix(outer(inner), before));
        }
    }
    rules.extend(inner_wrapper(name));
    rules
}

/// The rule for a model of which a part was compiled: `model.layers.0._orig_mod.mlp`.
fn inner_wrapper(name: &str) -> Option<MapRule> {
    let at = name.find(&format!(".{COMPILED}."))?;
    let outer = starred(&name[..at]);
    Some(MapRule::prefix(&join(&outer, COMPILED), &outer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use crate::settings::options::Options;
    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize_to_file};

    /// Finds the names of rows of width 4 in a model with weights [2, 4] of these names.
    fn found(folder: &str, weights: &[&str], recorded: &[&str]) -> Naming {
        let recorded: Vec<_> = recorded.iter().map(|name| row_of(name, 4)).collect();
        found_in(folder, "{}", weights, &recorded)
    }

    fn row_of(name: &str, in_features: usize) -> RecordedModule {
        RecordedModule {
            name: name.to_owned(),
            in_features,
        }
    }

    /// Finds the names of these rows in a model with this configuration.
    fn found_in(
        folder: &str,
        config: &str,
        weights: &[&str],
        recorded: &[RecordedModule],
    ) -> Naming {
        let path =
            std::env::temp_dir().join(format!("qera-naming-{folder}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("config.json"), config).unwrap();
        let bytes = [0; 32];
        let view = || TensorView::new(Dtype::F32, vec![2, 4], &bytes).unwrap();
        let tensors = weights
            .iter()
            .map(|name| (format!("{name}.weight"), view()));
        serialize_to_file(tensors, None, &path.join("model.safetensors")).unwrap();
        let settings = Settings::resolve(&Options {
            checkpoint: Some(path.clone()),
            ..Options::defaults()
        });
        let settings = settings.unwrap();
        let model = Model::open(&settings).unwrap().unwrap();
        let naming = find(&model, &settings.weights.selection, recorded);
        std::fs::remove_dir_all(&path).unwrap();
        naming
    }

    fn rules(naming: &Naming) -> Vec<String> {
        let of = |map: &NameMap| map.rules().iter().map(ToString::to_string).collect();
        match naming {
            Naming::Found(map) => of(map),
            Naming::Ambiguous(maps) => maps.iter().flat_map(of).collect(),
            Naming::Unknown => vec!["unknown".into()],
        }
    }

    #[test]
    fn one_prefix_is_found_and_two_are_not_chosen_from() {
        let bloom = ["h.0.up", "h.0.down", "h.1.up"];
        let cases: [(&[&str], &[&str], &[&str]); 8] = [
            (&bloom, &["h.0.up", "lm_head"], &[]),
            (
                &bloom,
                &["transformer.h.0.up", "transformer.h.1.up"],
                &["transformer="],
            ),
            (&["a.h.0.up", "a.h.1.up"], &["h.0.up"], &["=a"]),
            (&bloom, &["_orig_mod.module.h.0.up"], &["_orig_mod.module="]),
            (&["a.h.0.up"], &["_orig_mod.h.0.up"], &["_orig_mod=a"]),
            (
                &bloom,
                &["h.0._orig_mod.up", "h.1._orig_mod.up"],
                &["h.*._orig_mod=h.*"],
            ),
            (&["a.h.0.up", "b.h.0.up"], &["h.0.up"], &["=a", "=b"]),
            (
                &bloom,
                &["transformer.h.0.up", "transformer.h.0.other"],
                &["unknown"],
            ),
        ];
        for (at, (weights, recorded, expected)) in cases.into_iter().enumerate() {
            let naming = found(&format!("case-{at}"), weights, recorded);
            assert_eq!(rules(&naming), expected, "{recorded:?}");
            let several = matches!(naming, Naming::Ambiguous(_));
            assert_eq!(several, expected.len() > 1, "{recorded:?}");
        }
        for (at, recorded) in ["h.0.up.weight", "transformer.h.0.up.weight"]
            .iter()
            .enumerate()
        {
            let Naming::Found(map) = found(&format!("suffix-{at}"), &bloom, &[recorded]) else {
                panic!("the suffix of {recorded} is taken off");
            };
            assert_eq!(map.apply(recorded), "h.0.up");
        }
    }

    const LLAMA: &str = r#"{"model_type":"llama"}"#;

    #[test]
    fn names_of_a_gguf_are_those_of_the_family() {
        let (query, down) = ("layers.0.self_attn.q_proj", "layers.1.mlp.down_proj");
        for (at, prefix) in ["model.", ""].into_iter().enumerate() {
            for suffix in ["", ".weight"] {
                let of = |name: &str| format!("{name}{suffix}");
                let weights = [query, down].map(|of| format!("{prefix}{of}"));
                let weights: Vec<&str> = weights.iter().map(String::as_str).collect();
                let keys = ["blk.0.attn_q", "blk.1.ffn_down", "output", "token_embd"].map(of);
                let rows: Vec<_> = keys.iter().map(|key| row_of(key, 4)).collect();
                let naming = found_in(&format!("gguf-{at}{suffix}"), LLAMA, &weights, &rows);
                let Naming::Found(map) = naming else {
                    panic!("{naming:?}");
                };
                let mapped = keys.clone().map(|key| map.apply(&key));
                let embedding = format!("{prefix}embed_tokens");
                assert_eq!(mapped, [weights[0], weights[1], "lm_head", &embedding]);
                assert_eq!(map.undo(weights[1]), "blk.1.ffn_down");
            }
        }
    }

    #[test]
    fn a_part_s_family_names_the_part() {
        let config = r#"{"model_type":"gemma3","text_config":{"model_type":"gemma3_text"}}"#;
        let vision = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj";
        for (at, path) in ["language_model.model", "model.language_model"]
            .into_iter()
            .enumerate()
        {
            let weight = format!("{path}.layers.0.self_attn.q_proj");
            let rows = [row_of("blk.0.attn_q.weight", 4)];
            let naming = found_in(&format!("part-{at}"), config, &[&weight, vision], &rows);
            let Naming::Found(map) = naming else {
                panic!("{naming:?}");
            };
            assert_eq!(map.apply("blk.0.attn_q.weight"), weight);
        }
    }

    #[test]
    fn names_of_a_gguf_are_not_guessed() {
        let weights = ["model.layers.0.self_attn.q_proj"];
        let both = [weights[0], "layers.0.self_attn.q_proj"];
        let query = [row_of("blk.0.attn_q", 4)];
        let cases: [(&str, &[&str], &[RecordedModule], bool); 6] = [
            // Rows of another width, alone and beside rows that fit.
            (LLAMA, &weights, &[row_of("blk.0.attn_q", 3)], false),
            (
                LLAMA,
                &[weights[0], "model.layers.0.self_attn.k_proj"],
                &[row_of("blk.0.attn_q", 4), row_of("blk.0.attn_k", 3)],
                false,
            ),
            // A name that the model does not have.
            (LLAMA, &weights, &[row_of("blk.1.attn_q", 4)], false),
            (LLAMA, &weights, &[row_of("blk.x.attn_q", 4)], false),
            // A model of no family.
            (r#"{"model_type":"granite"}"#, &weights, &query, false),
            // Names that fit in two ways.
            (LLAMA, &both, &query, true),
        ];
        for (at, (config, weights, rows, several)) in cases.into_iter().enumerate() {
            let naming = found_in(&format!("not-{at}"), config, weights, rows);
            assert!(!matches!(naming, Naming::Found(_)), "{at}: {naming:?}");
            let ambiguous = matches!(naming, Naming::Ambiguous(_));
            assert_eq!(ambiguous, several, "{at}");
        }
    }
}
