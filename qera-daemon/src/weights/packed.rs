//! An open folder of a model that another program packed: its tensors, and its description of how
//! they are packed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::disk::identity::Identity;
use crate::disk::presence::is_folder;
use crate::disk::read_if_there;
use crate::error::Fatal;
use crate::formats::model_config::ModelConfig;
use crate::formats::packed::config::PackingConfig;
use crate::weights::checkpoint::{Checkpoint, refuse};

const CONFIG: &str = "config.json";
/// The file in which older programs describe the packing, without naming a method.
const OLDER_CONFIG: &str = "quantize_config.json";
/// The method of these programs.
const OLDER_METHOD: &str = "gptq";

/// A folder of packed weights.
#[derive(Debug)]
pub(crate) struct PackedFolder {
    /// The tensors.
    pub(crate) checkpoint: Checkpoint,
    /// How they are packed.
    pub(crate) config: PackingConfig,
    /// The description in words, for the fingerprint.
    said: String,
    /// The files' identities when they were opened.
    identities: Vec<Option<Identity>>,
}

/// A folder's description of how it is packed.
struct Said {
    path: PathBuf,
    value: Value,
    method: Option<&'static str>,
}

impl PackedFolder {
    /// Opens a folder.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the file, and the tensor where it is one: as for
    /// [`Checkpoint::open`]; a folder that does not say how it is packed, or in a way that is not
    /// read.
    pub(crate) fn open(path: &Path) -> Result<Self, Fatal> {
        let checkpoint = Checkpoint::open(path)?;
        let said = said(path, &checkpoint.config)?.ok_or_else(|| {
            let reason = format!(
                "{CONFIG} has no quantization_config, and there is no {OLDER_CONFIG}: --quantized is \
                 a GGUF file, or a folder whose weights are packed"
            );
            refuse(path, reason)
        })?;
        let config = PackingConfig::parse(&said.value, said.method);
        let config = config.map_err(|e| refuse(&said.path, format!("quantization: {e}")))?;
        let files = checkpoint.files.iter();
        let identities = files.map(|file| Identity::at(&file.path).ok()).collect();
        Ok(Self {
            checkpoint,
            config,
            said: said.value.to_string(),
            identities,
        })
    }

    /// The path of a file that was replaced or changed since it was opened.
    #[must_use]
    pub(crate) fn changed(&self) -> Option<&Path> {
        let mut files = self.checkpoint.files.iter().zip(&self.identities);
        let changed = files.find(|(file, then)| Identity::at(&file.path).ok() != **then);
        changed.map(|(file, _)| file.path.as_path())
    }

    /// BLAKE3 over the description of the packing, and over name, type, shape and all bytes of
    /// every tensor, in the order of names.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let method = self.config.method();
        hasher.update(format!("{method}\0{}\0", self.said).as_bytes());
        for (name, tensor) in &self.checkpoint.tensors {
            let (dtype, shape) = (tensor.dtype, &tensor.shape);
            hasher.update(format!("{name}\0{dtype}\0{shape:?}\0").as_bytes());
            hasher.update(self.checkpoint.bytes(tensor));
        }
        format!("blake3:{}", hasher.finalize().to_hex())
    }
}

/// Whether a folder says that its weights are packed, in any way.
///
/// # Errors
/// [`Fatal::Io`]. What cannot be understood says nothing.
pub(crate) fn is_packed(path: &Path) -> Result<bool, Fatal> {
    if !is_folder(path)? {
        return Ok(false);
    }
    let config = read_if_there(&path.join(CONFIG))?;
    let config = config.and_then(|bytes| ModelConfig::parse(&bytes).ok());
    match said(path, &config.unwrap_or_default()) {
        Err(Fatal::Checkpoint { .. }) => Ok(false),
        said => Ok(said?.is_some()),
    }
}

/// Reads a folder's description of how it is packed.
fn said(path: &Path, config: &ModelConfig) -> Result<Option<Said>, Fatal> {
    if let Some(value) = config.quantization() {
        return Ok(Some(Said {
            path: path.join(CONFIG),
            value: value.clone(),
            method: None,
        }));
    }
    let path = path.join(OLDER_CONFIG);
    let Some(bytes) = read_if_there(&path)? else {
        return Ok(None);
    };
    let value = serde_json::from_slice(&bytes);
    let value = value.map_err(|e| refuse(&path, format!("not JSON: {e}")))?;
    Ok(Some(Said {
        path,
        value,
        method: Some(OLDER_METHOD),
    }))
}
