//! vLLM's requests and answers as text: the bodies that are posted, and the parts of answers that
//! are read.

use serde::Deserialize;
use serde_json::{Value, json};

/// Lists models and adapters.
pub(crate) const MODELS: &str = "/v1/models";
/// Loads an adapter.
pub(crate) const LOAD: &str = "/v1/load_lora_adapter";
/// Unloads an adapter.
pub(crate) const UNLOAD: &str = "/v1/unload_lora_adapter";
/// Completes a text.
pub(crate) const COMPLETIONS: &str = "/v1/completions";
/// How many characters of a server's message are repeated.
const MESSAGE_MAX: usize = 300;

/// The answer of `/v1/models`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ServedModels {
    data: Vec<ModelCard>,
    /// What qera's plugin adds to the answer, where the server has the plugin.
    #[serde(default)]
    qera: Value,
}

/// A model, or an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ModelCard {
    /// The name of the model or adapter.
    pub(crate) id: String,
    /// The path that it was loaded from.
    #[serde(default)]
    pub(crate) root: Option<String>,
    /// For an adapter: the model that it belongs to.
    #[serde(default)]
    pub(crate) parent: Option<String>,
}

/// Why an answer is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The answer is no JSON, or lacks what was asked for.
    #[error("what is no answer to it ({0})")]
    Form(String),
    /// A token of the text has no log probability, or several.
    #[error("no prompt_logprobs of one number for each token")]
    Logprobs,
}

impl ServedModels {
    /// Reads the list of an answer.
    ///
    /// # Errors
    /// [`AnswerError::Form`].
    pub(crate) fn parse(body: &[u8]) -> Result<Self, AnswerError> {
        parse(body)
    }

    /// The model or adapter of this name.
    #[must_use]
    pub(crate) fn find(&self, name: &str) -> Option<&ModelCard> {
        self.data.iter().find(|card| card.id == name)
    }

    /// The model that adapters belong to.
    #[must_use]
    pub(crate) fn base(&self) -> Option<&ModelCard> {
        self.data.iter().find(|card| card.parent.is_none())
    }

    /// The adapters.
    pub(crate) fn adapters(&self) -> impl Iterator<Item = &ModelCard> {
        self.data.iter().filter(|card| card.parent.is_some())
    }

    /// Whether the server has qera's plugin, which loads an adapter in the place of another. A
    /// server without it would read such an adapter from the disk again for each token.
    #[must_use]
    pub(crate) fn swaps_in_place(&self) -> bool {
        self.qera["swaps_in_place"] == true
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, AnswerError> {
    serde_json::from_slice(body).map_err(|error| AnswerError::Form(error.to_string()))
}

/// The body that is posted to [`LOAD`].
#[must_use]
pub(crate) fn load(name: &str, path: &str, in_place: bool) -> Vec<u8> {
    let mut body = json!({"lora_name": name, "lora_path": path});
    if in_place {
        body["load_inplace"] = true.into();
    }
    body.to_string().into_bytes()
}

/// The body that is posted to [`UNLOAD`].
#[must_use]
pub(crate) fn unload(name: &str) -> Vec<u8> {
    json!({"lora_name": name}).to_string().into_bytes()
}

/// The body that is posted to [`COMPLETIONS`] to get the log probabilities of a text's tokens.
#[must_use]
pub(crate) fn score(model: &str, text: &str) -> Vec<u8> {
    let body = json!({
        "model": model, "prompt": text, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0,
    });
    body.to_string().into_bytes()
}

/// The body that is posted to [`COMPLETIONS`] to make the engine take up an adapter again that it
/// has put aside.
#[must_use]
pub(crate) fn touch(model: &str) -> Vec<u8> {
    let body = json!({"model": model, "prompt": "a", "max_tokens": 1, "temperature": 0});
    body.to_string().into_bytes()
}

/// The log probabilities of a text's tokens, from the second token on.
///
/// # Errors
/// [`AnswerError`].
pub(crate) fn prompt_logprobs(body: &[u8]) -> Result<Vec<f64>, AnswerError> {
    let answer: Value = parse(body)?;
    let Some(positions) = answer["choices"][0]["prompt_logprobs"].as_array() else {
        return Err(AnswerError::Logprobs);
    };
    let of_token = |position: &Value| {
        let tokens = position.as_object()?;
        let only = tokens.values().next().filter(|_| tokens.len() == 1)?;
        only["logprob"].as_f64().filter(|x| x.is_finite())
    };
    let found: Option<Vec<f64>> = positions.iter().skip(1).map(of_token).collect();
    found.filter(|x| !x.is_empty()).ok_or(AnswerError::Logprobs)
}

/// Whether the engine had put aside the adapter that is to be unloaded. vLLM then knows it by name
/// only, and refuses to unload it.
#[must_use]
pub(crate) fn was_put_aside(body: &[u8]) -> bool {
    error_message(body).contains("Failed to remove lora adapter")
}

/// Whether the adapter that is to be unloaded is not loaded.
#[must_use]
pub(crate) fn is_not_loaded(status: u16, body: &[u8]) -> bool {
    status == 404 && is_error_of_vllm(body)
}

/// Whether vLLM itself made this error.
#[must_use]
pub(crate) fn is_error_of_vllm(body: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    answer["error"].is_object() || answer["object"] == "error"
}

/// The message of an error, in one line of bounded length.
#[must_use]
pub(crate) fn error_message(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = [
        &answer["error"]["message"],
        &answer["message"],
        &answer["detail"],
    ];
    let said = said.into_iter().find_map(Value::as_str);
    let text = said.map_or_else(
        || String::from_utf8_lossy(&body[..body.len().min(MESSAGE_MAX)]).into_owned(),
        str::to_owned,
    );
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MESSAGE_MAX) {
        line.truncate(end);
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_adapters_are_told_apart() {
        let body = br#"{"object":"list","data":[
            {"id":"m","object":"model","root":"/m","parent":null,"max_model_len":1100,"permission":[]},
            {"id":"qera","object":"model","root":"/out/generations/000003","parent":"m"}]}"#;
        let served = ServedModels::parse(body).unwrap();
        assert_eq!(served.base().unwrap().id, "m");
        let root = served.find("qera").and_then(|card| card.root.as_deref());
        assert_eq!(root, Some("/out/generations/000003"));
        assert_eq!(served.adapters().count(), 1);
        assert!(served.find("other").is_none());
        assert!(!served.swaps_in_place());
        for wrong in [
            &b"{}"[..],
            b"[1]",
            b"",
            b"<html>",
            br#"{"data":[{"root":"/"}]}"#,
        ] {
            assert!(matches!(
                ServedModels::parse(wrong),
                Err(AnswerError::Form(_))
            ));
        }
    }

    #[test]
    fn only_the_plugin_says_that_a_server_swaps_in_place() {
        let swaps = |more: &str| {
            let body = format!(r#"{{"object":"list","data":[]{more}}}"#);
            ServedModels::parse(body.as_bytes())
                .unwrap()
                .swaps_in_place()
        };
        assert!(swaps(r#","qera":{"plugin":"0.1.0","swaps_in_place":true}"#));
        for more in [
            "",
            r#","qera":null"#,
            r#","qera":true"#,
            r#","qera":{"plugin":"0.1.0"}"#,
            r#","qera":{"swaps_in_place":false}"#,
            r#","qera":{"swaps_in_place":"true"}"#,
        ] {
            assert!(!swaps(more), "{more}");
        }
    }

    #[test]
    fn each_token_of_a_text_has_one_number() {
        let body = br#"{"choices":[{"text":"x","prompt_logprobs":[null,
            {"5":{"logprob":-1.5,"rank":2,"decoded_token":"a"}},{"7":{"logprob":-0.25,"rank":1}}]}]}"#;
        assert_eq!(prompt_logprobs(body).unwrap(), [-1.5, -0.25]);
        for wrong in [
            &br#"{"choices":[]}"#[..],
            br#"{"choices":[{"prompt_logprobs":null}]}"#,
            br#"{"choices":[{"prompt_logprobs":[null]}]}"#,
            br#"{"choices":[{"prompt_logprobs":[null,null]}]}"#,
            br#"{"choices":[{"prompt_logprobs":[null,{"5":{"logprob":"x"}}]}]}"#,
            br#"{"choices":[{"prompt_logprobs":[null,{"5":{"logprob":-1},"6":{"logprob":-2}}]}]}"#,
        ] {
            assert_eq!(prompt_logprobs(wrong), Err(AnswerError::Logprobs));
        }
    }

    #[test]
    fn what_is_posted_is_what_vllm_reads() {
        let text = |body: Vec<u8>| String::from_utf8(body).unwrap();
        assert_eq!(
            text(load("q", "/a/\"b", false)),
            r#"{"lora_name":"q","lora_path":"/a/\"b"}"#
        );
        assert!(text(load("q", "/a", true)).contains(r#""load_inplace":true"#));
        assert_eq!(text(unload("q")), r#"{"lora_name":"q"}"#);
        let scored: Value = serde_json::from_slice(&score("m", "A text.")).unwrap();
        assert_eq!(scored["prompt_logprobs"], 0);
        assert_eq!(scored["prompt"], "A text.");
    }

    #[test]
    fn an_error_is_a_short_line() {
        let of = |body: &str| error_message(body.as_bytes());
        assert_eq!(of(r#"{"error":{"message":"a\nb","code":400}}"#), "a b");
        assert_eq!(of(r#"{"object":"error","message":"a"}"#), "a");
        assert_eq!(of(r#"{"detail":"Not Found"}"#), "Not Found");
        assert_eq!(of("<h1>no</h1>"), "<h1>no</h1>");
        assert_eq!(of(&"\u{e9}".repeat(5000)).chars().count(), 150);
        let long = format!(r#"{{"detail":"{}"}}"#, "\u{e9}".repeat(5000));
        assert_eq!(of(&long).chars().count(), 303);
        assert!(is_error_of_vllm(br#"{"error":{"message":"a"}}"#));
        assert!(!is_error_of_vllm(br#"{"detail":"Not Found"}"#));
    }
}
