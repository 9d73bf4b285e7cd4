//! What a shard claims to hold: its header, read and checked against the file's length.

use std::path::{Path, PathBuf};

use safetensors::Dtype;

use crate::tensor_file::{Header, HeaderError};

use super::Refusal;

/// A tensor of a shard, as its header describes it.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Key.
    pub key: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Byte of the file where it starts.
    pub start: u64,
    /// Bytes.
    pub bytes: usize,
}

/// A shard's header.
#[derive(Debug)]
pub struct ShardHeader {
    /// The file.
    pub path: PathBuf,
    /// Its name, for messages.
    pub name: String,
    /// Its tensors, in the order of the file.
    pub claims: Vec<Claim>,
    metadata: std::collections::HashMap<String, String>,
}

impl ShardHeader {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Refusal`] when the file is no complete safetensors file.
    pub fn open(path: &Path) -> Result<Self, Refusal> {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let refused = |error: HeaderError| Refusal {
            shard: name.clone(),
            reason: error.into(),
        };
        let header = Header::read(path).map_err(refused)?;
        let mut claims: Vec<_> = header
            .metadata
            .tensors()
            .into_iter()
            .map(|(key, info)| Claim {
                key,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: header.data_start + info.data_offsets.0 as u64,
                bytes: info.data_offsets.1 - info.data_offsets.0,
            })
            .collect();
        claims.sort_by(|a, b| (a.start, &a.key).cmp(&(b.start, &b.key)));
        Ok(Self {
            path: path.to_path_buf(),
            name,
            claims,
            metadata: header.metadata.metadata().clone().unwrap_or_default(),
        })
    }

    /// A value of the header's metadata.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }
}
