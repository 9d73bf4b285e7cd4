//! `model.safetensors.index.json`: which file of a checkpoint holds which tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path};

/// Why the bytes are no index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// The bytes are no JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The JSON has no map of weights.
    #[error("has no \"weight_map\"")]
    NoMap,
    /// An entry names a file elsewhere.
    #[error(
        "tensor '{tensor}' names '{file}', which is no plain file name: only files beside the index are read"
    )]
    NotBeside {
        /// The tensor's name.
        tensor: String,
        /// The file that it names.
        file: String,
    },
    /// An entry names no file.
    #[error("tensor '{tensor}' names no file")]
    NoFile {
        /// The tensor's name.
        tensor: String,
    },
}

/// The tensors in each file, by the file's name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckpointIndex {
    /// The files' tensors; no list is empty.
    pub(crate) files: BTreeMap<String, Vec<String>>,
}

impl CheckpointIndex {
    /// Reads the index.
    ///
    /// # Errors
    /// [`IndexError`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, IndexError> {
        let index: serde_json::Value = serde_json::from_slice(bytes)?;
        let map = index.get("weight_map").and_then(|map| map.as_object());
        let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, file) in map.ok_or(IndexError::NoMap)? {
            let tensor = tensor.clone();
            let Some(file) = file.as_str() else {
                return Err(IndexError::NoFile { tensor });
            };
            if !is_plain(file) {
                let file = file.to_owned();
                return Err(IndexError::NotBeside { tensor, file });
            }
            files.entry(file.to_owned()).or_default().push(tensor);
        }
        Ok(Self { files })
    }
}

/// Whether a name is that of a file in the same folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let first = parts.next();
    matches!(first, Some(Component::Normal(part)) if part == name) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_gathered_by_file_and_what_is_no_index_is_named() {
        let index = br#"{"weight_map":{"a":"1","b":"2","c":"1"}}"#;
        let files = CheckpointIndex::parse(index).unwrap().files;
        assert_eq!(files["1"], ["a", "c"]);
        assert_eq!(files["2"], ["b"]);
        for (bytes, said) in [
            (&b"\xff"[..], "not JSON"),
            (b"[]", "weight_map"),
            (br#"{"weight_map":[]}"#, "weight_map"),
            (br#"{"weight_map":{"a":1}}"#, "'a' names no file"),
            (br#"{"weight_map":{"a":"../1"}}"#, "'a' names '../1'"),
            (br#"{"weight_map":{"a":"/etc/1"}}"#, "'a' names '/etc/1'"),
            (br#"{"weight_map":{"a":"b/1"}}"#, "'a' names 'b/1'"),
            (br#"{"weight_map":{"a":".."}}"#, "'a' names '..'"),
            (br#"{"weight_map":{"a":"./1"}}"#, "'a' names './1'"),
            (br#"{"weight_map":{"a":""}}"#, "'a' names ''"),
        ] {
            let message = CheckpointIndex::parse(bytes).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }
}
