//! `config.json` of a Hugging Face model, as far as it is read.

use serde_json::{Value, json};

/// A part of a model that has a configuration of its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigPart<'a> {
    /// Possible prefixes of the part's modules; empty for the whole model.
    pub(crate) scopes: &'static [&'static str],
    /// The part's `model_type`.
    pub(crate) model_type: &'a str,
}

/// Where Transformers keeps a part's configuration, and the prefixes of the part's modules.
struct Nested {
    key: &'static str,
    scopes: &'static [&'static str],
}

/// The prefixes of the modules of a text model that is a part of a model.
pub(crate) const TEXT_SCOPES: &[&str] = &["language_model", "model.language_model"];

const NESTED: [Nested; 3] = [
    Nested {
        key: "text_config",
        scopes: TEXT_SCOPES,
    },
    Nested {
        key: "decoder",
        scopes: &["decoder"],
    },
    Nested {
        key: "encoder",
        scopes: &["encoder"],
    },
];

/// Keys that a configuration has where the weights are not in full precision any more.
const QUANTIZED: [&str; 2] = ["quantization_config", "compression_config"];

/// Architectures whose `tie_word_embeddings` is false where config.json does not say, among
/// decoders and encoder-decoders: from the classes' defaults in Transformers 4.40.2; phi3, phimoe,
/// nemotron, olmoe, granite, granitemoe and glm from 4.46.3. All others inherit `true`.
const UNTIED: [&str; 28] = [
    "codegen",
    "dbrx",
    "fsmt",
    "fuyu",
    "glm",
    "gpt_neox",
    "gptj",
    "granite",
    "granitemoe",
    "idefics",
    "idefics2",
    "jamba",
    "llama",
    "mistral",
    "mixtral",
    "mt5",
    "nemotron",
    "olmo",
    "olmoe",
    "open-llama",
    "persimmon",
    "phi",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2_moe",
    "rwkv",
    "stablelm",
];

/// A model's configuration; empty where there is none.
#[derive(Debug, Default)]
pub(crate) struct ModelConfig(Value);

impl ModelConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The bytes are no JSON.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes).map(Self)
    }

    /// The configuration of a model that has no such file, from what else is known of it.
    #[must_use]
    pub(crate) fn of_kind(model_type: &str, tied: bool) -> Self {
        Self(json!({"model_type": model_type, "tie_word_embeddings": tied}))
    }

    /// The name under which the model was loaded or saved.
    #[must_use]
    pub(crate) fn name(&self) -> Option<&str> {
        let name = self.0.get("_name_or_path")?.as_str()?;
        (!name.is_empty()).then_some(name)
    }

    /// The class that saved the model, whose names the checkpoint has.
    #[must_use]
    pub(crate) fn class(&self) -> Option<&str> {
        let classes = self.0.get("architectures")?.as_array()?;
        classes
            .first()?
            .as_str()
            .filter(|class| is_identifier(class))
    }

    /// The automatic class that loads this class from the code beside the checkpoint.
    #[must_use]
    pub(crate) fn remote_loader(&self, class: &str) -> Option<&str> {
        let map = self.0.get("auto_map")?.as_object()?;
        let is_it = |value: &Value| {
            let path = value.as_str().unwrap_or_default();
            path.rsplit('.').next() == Some(class)
        };
        let (loader, _) = map.iter().find(|(_, value)| is_it(value))?;
        is_identifier(loader).then_some(loader)
    }

    /// Whether the configuration says what the model is.
    #[must_use]
    pub(crate) fn names_a_model(&self) -> bool {
        model_type(&self.0).is_some() || self.class().is_some()
    }

    /// The architectures of the model and of its parts with configurations of their own, each with
    /// the prefixes of its modules.
    #[must_use]
    pub(crate) fn parts(&self) -> Vec<ConfigPart<'_>> {
        let whole = model_type(&self.0).map(|model_type| ConfigPart {
            scopes: &[""],
            model_type,
        });
        let nested = NESTED.iter().filter_map(|nested| {
            Some(ConfigPart {
                scopes: nested.scopes,
                model_type: model_type(self.0.get(nested.key)?)?,
            })
        });
        whole.into_iter().chain(nested).collect()
    }

    /// The `model_type` of the model and of its parts.
    #[must_use]
    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.parts().iter().map(|part| part.model_type).collect()
    }

    /// A number of the part of this kind, from the first of these keys that it has.
    #[must_use]
    pub(crate) fn number(&self, kind: &str, keys: &[&str]) -> Option<u64> {
        let part = self.part(kind)?;
        keys.iter().find_map(|key| part.get(*key)?.as_u64())
    }

    /// The `true` or `false` of the part of this kind under a key.
    #[must_use]
    pub(crate) fn flag(&self, kind: &str, key: &str) -> Option<bool> {
        self.part(kind)?.get(key)?.as_bool()
    }

    /// The configuration of the part of this kind.
    fn part(&self, kind: &str) -> Option<&Value> {
        let nested = NESTED.iter().filter_map(|nested| self.0.get(nested.key));
        let mut parts = [&self.0].into_iter().chain(nested);
        parts.find(|part| model_type(part) == Some(kind))
    }

    /// The path at which it says that its weights are quantized by another program, as
    /// `text_config.quantization_config`. Models with several parts say so in the part.
    #[must_use]
    pub(crate) fn quantized_by(&self) -> Option<String> {
        quantized_by(&self.0)
    }

    /// The description of that quantization in the configuration.
    #[must_use]
    pub(crate) fn quantization(&self) -> Option<&Value> {
        quantization(&self.0)
    }

    /// Whether Transformers puts the embedding in the place of an output layer when it loads the
    /// model. A single `true` is enough, in the model or in the part with the output layer. Where
    /// nothing is said, the class's default counts, which is `true` unless the architecture is one
    /// of [`UNTIED`]: a head that is not known to stay counts as tied.
    #[must_use]
    pub(crate) fn ties_embeddings(&self) -> bool {
        let nested = ["text_config", "decoder"].map(|key| self.0.get(key));
        let parts = nested.into_iter().flatten().chain([&self.0]);
        let said = parts.clone();
        let said = said.filter_map(|part| part.get("tie_word_embeddings")?.as_bool());
        let said: Vec<bool> = said.collect();
        if !said.is_empty() {
            return said.contains(&true);
        }
        let mut kinds = parts.filter_map(model_type);
        !kinds.next().is_some_and(|kind| UNTIED.contains(&kind))
    }
}

/// Whether a word can be the name of a class in Python.
#[must_use]
pub(crate) fn is_identifier(word: &str) -> bool {
    let is_letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    word.bytes().next().is_some_and(is_letter)
        && word.bytes().all(|b| is_letter(b) || b.is_ascii_digit())
}

fn model_type(config: &Value) -> Option<&str> {
    let found = config.get("model_type")?.as_str();
    found.filter(|of| !of.is_empty())
}

/// The path of the first of [`QUANTIZED`], at any depth.
fn quantized_by(config: &Value) -> Option<String> {
    let parts = config.as_object()?;
    let own = QUANTIZED
        .into_iter()
        .find(|key| parts.get(*key).is_some_and(|found| !found.is_null()));
    own.map(str::to_owned).or_else(|| {
        let mut parts = parts.iter();
        parts.find_map(|(part, config)| Some(format!("{part}.{}", quantized_by(config)?)))
    })
}

/// The value at [`quantized_by`]'s path.
fn quantization(config: &Value) -> Option<&Value> {
    let parts = config.as_object()?;
    let own = QUANTIZED.into_iter().find_map(|key| parts.get(key));
    own.filter(|found| !found.is_null())
        .or_else(|| parts.values().find_map(quantization))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_read_and_the_rest_is_as_nothing() {
        let config = ModelConfig::parse(
            br#"{"_name_or_path":"x/y","model_type":"llama","quantization_config":{},
                "text_config":{"tie_word_embeddings":true}}"#,
        )
        .unwrap();
        assert_eq!(
            (config.name(), model_type(&config.0)),
            (Some("x/y"), Some("llama"))
        );
        assert_eq!(config.quantized_by().unwrap(), "quantization_config");
        assert!(config.ties_embeddings());
        for bytes in [&b"[]"[..], b"{}", br#"{"_name_or_path":""}"#, b"null"] {
            let config = ModelConfig::parse(bytes).unwrap();
            assert_eq!((config.name(), model_type(&config.0)), (None, None));
            assert!(config.quantized_by().is_none() && config.ties_embeddings());
        }
        assert!(ModelConfig::parse(b"{").is_err());
    }
    #[test]
    fn a_head_is_tied_unless_config_or_class_say_it_is_not() {
        for (json, tied) in [
            ("{}", true),
            (r#"{"model_type":"falcon"}"#, true),
            (r#"{"model_type":"llama"}"#, false),
            (r#"{"model_type":"phi3","tie_word_embeddings":null}"#, false),
            (r#"{"model_type":"llama","tie_word_embeddings":true}"#, true),
            (
                r#"{"model_type":"gpt2","tie_word_embeddings":false}"#,
                false,
            ),
            (
                r#"{"model_type":"llava","text_config":{"model_type":"llama"}}"#,
                false,
            ),
            (
                r#"{"model_type":"llava","text_config":{"hidden_size":8}}"#,
                true,
            ),
            (r#"{"text_config":{"tie_word_embeddings":false}}"#, false),
            (
                r#"{"tie_word_embeddings":false,"text_config":{"tie_word_embeddings":true}}"#,
                true,
            ),
            (
                r#"{"tie_word_embeddings":false,"decoder":{"tie_word_embeddings":true}}"#,
                true,
            ),
            (
                r#"{"decoder":{"model_type":"mistral"},"encoder":{}}"#,
                false,
            ),
        ] {
            let config = ModelConfig::parse(json.as_bytes()).unwrap();
            assert_eq!(config.ties_embeddings(), tied, "{json}");
        }
    }

    #[test]
    fn quantization_is_found_at_any_depth() {
        for (json, said) in [
            (r#"{"compression_config":{}}"#, "compression_config"),
            (
                r#"{"text_config":{"quantization_config":{"bits":4}}}"#,
                "text_config.quantization_config",
            ),
            (
                r#"{"thinker_config":{"audio_config":{},"text_config":{"compression_config":1}}}"#,
                "thinker_config.text_config.compression_config",
            ),
        ] {
            let config = ModelConfig::parse(json.as_bytes()).unwrap();
            assert_eq!(config.quantized_by().as_deref(), Some(said));
            let of = said.split('.').fold(&config.0, |value, key| &value[key]);
            assert_eq!(config.quantization(), Some(of));
        }
        let config =
            br#"{"decoder":{"quantization_config":null},"encoder":["quantization_config"]}"#;
        assert!(ModelConfig::parse(config).unwrap().quantized_by().is_none());
    }
}
