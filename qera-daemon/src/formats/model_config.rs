//! `config.json` of a Hugging Face model: what is read of it.

use serde_json::Value;

/// A model's configuration; empty where there is none.
#[derive(Debug, Default)]
pub(crate) struct ModelConfig(Value);

impl ModelConfig {
    /// Reads it.
    ///
    /// # Errors
    /// What is no JSON about it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes).map(Self)
    }

    /// The name that the model was loaded or saved by.
    #[must_use]
    pub(crate) fn name(&self) -> Option<&str> {
        let name = self.0.get("_name_or_path")?.as_str()?;
        (!name.is_empty()).then_some(name)
    }

    /// The architecture; empty where it is not said.
    #[must_use]
    pub(crate) fn model_type(&self) -> &str {
        let found = self.0.get("model_type").and_then(Value::as_str);
        found.unwrap_or_default()
    }

    /// Whether its weights are quantized by somebody else.
    #[must_use]
    pub(crate) fn is_quantized(&self) -> bool {
        let found = self.0.get("quantization_config");
        found.is_some_and(|config| !config.is_null())
    }

    /// Whether its output layer is the embedding.
    #[must_use]
    pub(crate) fn ties_embeddings(&self) -> bool {
        let of = |config: &Value| config.get("tie_word_embeddings")?.as_bool();
        of(&self.0) == Some(true) || self.0.get("text_config").and_then(of) == Some(true)
    }
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
        assert_eq!((config.name(), config.model_type()), (Some("x/y"), "llama"));
        assert!(config.is_quantized() && config.ties_embeddings());
        for bytes in [&b"[]"[..], b"{}", br#"{"_name_or_path":""}"#, b"null"] {
            let config = ModelConfig::parse(bytes).unwrap();
            assert_eq!((config.name(), config.model_type()), (None, ""));
            assert!(!config.is_quantized() && !config.ties_embeddings());
        }
        assert!(ModelConfig::parse(b"{").is_err());
    }
}
