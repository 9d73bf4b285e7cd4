//! A Hugging Face checkpoint, read-only and one tensor at a time: which files, which tensors, which of
//! them are linear layers (`layers`), and which of those share an input (`sites`).

use core::ops::Range;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::Dtype;

use crate::disk::mapping::map;
use crate::error::Fatal;
use crate::formats::safetensors::header::{Claim, Header};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// The open checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// The path as given.
    pub(crate) path: PathBuf,
    /// Every tensor of every file, by name.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    files: Vec<(PathBuf, Mmap)>,
    config: Option<serde_json::Value>,
}

/// Where a tensor lies.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Shape, row-major.
    pub(crate) shape: Vec<usize>,
    file: usize,
    range: Range<usize>,
}

impl Checkpoint {
    /// Opens a safetensors file, or a folder with `model.safetensors.index.json` or
    /// `model.safetensors`; `config.json` beside it is read when there is one.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the file, and the tensor where it is one: nothing to open, a file
    /// that is no complete safetensors file, a file or tensor that the index names and that is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, Fatal> {
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            tensors: BTreeMap::new(),
            files: Vec::new(),
            config: None,
        };
        checkpoint.config = read_config(checkpoint.folder())?;
        let named = |name: &str| path.file_name().is_some_and(|n| n == name);
        if named(INDEX) {
            checkpoint.add_indexed(path)?;
        } else if !path.is_dir() {
            checkpoint.add_file(path)?;
        } else if path.join(SINGLE).is_file() {
            // As transformers does: the single file before the index.
            checkpoint.add_file(&path.join(SINGLE))?;
        } else if path.join(INDEX).is_file() {
            checkpoint.add_indexed(&path.join(INDEX))?;
        } else {
            return Err(refuse(path, format!("holds neither {SINGLE} nor {INDEX}")));
        }
        Ok(checkpoint)
    }

    /// The bytes of a tensor, straight from the mapping.
    #[must_use]
    pub(crate) fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.files[tensor.file].1[tensor.range.clone()]
    }

    /// The file that a tensor lies in, for messages.
    #[must_use]
    pub(crate) fn file_of(&self, tensor: &Tensor) -> &Path {
        &self.files[tensor.file].0
    }

    /// A value of `config.json`.
    #[must_use]
    pub(crate) fn config(&self, key: &str) -> Option<&serde_json::Value> {
        self.config.as_ref()?.get(key)
    }

    /// The folder that the checkpoint lies in.
    #[must_use]
    pub(crate) fn folder(&self) -> &Path {
        if self.path.is_dir() {
            return &self.path;
        }
        self.path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    }

    /// The names under which a shard's `qera.model` may call this model.
    #[must_use]
    pub(crate) fn model_names(&self) -> Vec<String> {
        let configured = self
            .config("_name_or_path")
            .and_then(|v| v.as_str())
            .filter(|s| !s.is_empty());
        let full = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let own = full
            .file_stem()
            .filter(|_| full.is_file())
            .or_else(|| full.file_name());
        configured
            .map(str::to_owned)
            .into_iter()
            .chain(own.map(|name| name.to_string_lossy().into_owned()))
            .collect()
    }

    fn add_indexed(&mut self, index_path: &Path) -> Result<(), Fatal> {
        let folder = self.folder().to_path_buf();
        let text = std::fs::read_to_string(index_path).map_err(Fatal::io(index_path, "read"))?;
        let index: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| refuse(index_path, format!("not JSON: {e}")))?;
        let map = index
            .get("weight_map")
            .and_then(|m| m.as_object())
            .ok_or_else(|| refuse(index_path, "has no \"weight_map\"".into()))?;
        let mut wanted: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in map {
            let file = file
                .as_str()
                .ok_or_else(|| refuse(index_path, format!("tensor '{tensor}' names no file")))?;
            wanted.entry(file).or_default().push(tensor);
        }
        for (file, tensors) in wanted {
            let path = folder.join(file);
            if !path.is_file() {
                return Err(refuse(
                    index_path,
                    format!(
                        "names the file {file} ({} tensors, '{}' first), which is missing",
                        tensors.len(),
                        tensors[0]
                    ),
                ));
            }
            self.add_file(&path)?;
            if let Some(lacking) = tensors.iter().find(|t| !self.tensors.contains_key(**t)) {
                return Err(refuse(
                    &path,
                    format!("lacks tensor '{lacking}', which {INDEX} says it holds"),
                ));
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<(), Fatal> {
        let header = Header::read(path).map_err(|e| refuse(path, e.to_string()))?;
        let mapping = map(path).map_err(Fatal::io(path, "map"))?;
        // The file may have changed between reading its header and mapping it.
        if mapping.len() as u64 != header.identity.bytes {
            return Err(refuse(path, "changed while it was being opened".into()));
        }
        for Claim {
            key,
            dtype,
            shape,
            start,
            bytes,
        } in header.claims
        {
            // No larger than the mapping's length, which is a usize.
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let tensor = Tensor {
                dtype,
                shape,
                file: self.files.len(),
                range: start..start + bytes,
            };
            if self.tensors.insert(key.clone(), tensor).is_some() {
                return Err(refuse(
                    path,
                    format!("tensor '{key}' is in another file too"),
                ));
            }
        }
        self.files.push((path.to_path_buf(), mapping));
        Ok(())
    }
}

fn read_config(folder: &Path) -> Result<Option<serde_json::Value>, Fatal> {
    let path = folder.join("config.json");
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| refuse(&path, format!("not JSON: {e}"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Fatal::io(&path, "read")(e)),
    }
}

pub(crate) fn refuse(path: &Path, reason: String) -> Fatal {
    Fatal::Checkpoint {
        path: path.to_path_buf(),
        reason,
    }
}
