//! `model.safetensors.index.json`: which file of a checkpoint holds which tensor.

use std::collections::BTreeMap;

/// Why the bytes are no index.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    /// No JSON at all.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of something else.
    #[error("has no \"weight_map\"")]
    NoMap,
    /// An entry that is no name.
    #[error("tensor '{tensor}' names no file")]
    NoFile {
        /// Its name.
        tensor: String,
    },
}

/// The tensors of each file, by its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CheckpointIndex {
    /// No list is empty.
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
            files.entry(file.to_owned()).or_default().push(tensor);
        }
        Ok(Self { files })
    }
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
        ] {
            let message = CheckpointIndex::parse(bytes).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }
}
