//! What the server was asked.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use super::server::{COMPLETIONS, LOAD, MODELS, UNLOAD};

/// A request, as it came.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) at: Instant,
    pub(super) path: String,
    /// The headers by their names in small letters.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Value,
}

impl Received {
    /// The request in short, with its path and subject: `load qera 000001`, `complete base`.
    pub(super) fn brief(&self) -> String {
        let text = |key: &str| self.body[key].as_str().unwrap_or_default().to_owned();
        let generation = text("lora_path");
        let generation = generation.rsplit('/').next().unwrap_or_default();
        match self.path.as_str() {
            MODELS => "look".into(),
            LOAD => format!("load {} {generation}", text("lora_name")),
            UNLOAD => format!("unload {}", text("lora_name")),
            COMPLETIONS => format!("ask {}", text("model")),
            other => other.to_owned(),
        }
    }
}
