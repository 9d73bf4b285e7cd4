//! What a shard claims to hold: its header, read and checked against the file's length.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::formats::safetensors::header::{Claim, Header, Identity};
use crate::source::refusal::Refusal;

/// A shard's header.
#[derive(Debug)]
pub(crate) struct ShardHeader {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its name, for messages.
    pub(crate) name: String,
    header: Header,
}

impl ShardHeader {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Refusal`] when the file is no complete safetensors file.
    pub(crate) fn open(path: &Path) -> Result<Self, Refusal> {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        match Header::read(path) {
            Ok(header) => Ok(Self {
                path: path.to_path_buf(),
                name,
                header,
            }),
            Err(error) => Err(Refusal {
                shard: name,
                reason: error.into(),
            }),
        }
    }

    /// Its name as the folder has it, which need not be text.
    #[must_use]
    pub(crate) fn file_name(&self) -> OsString {
        self.path.file_name().unwrap_or_default().to_owned()
    }

    /// Its tensors, in the order of the file.
    #[must_use]
    pub(crate) fn claims(&self) -> &[Claim] {
        &self.header.claims
    }

    /// The file as it was when the header was read.
    #[must_use]
    pub(crate) const fn identity(&self) -> Identity {
        self.header.identity
    }

    /// A value of the header's metadata.
    #[must_use]
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata.get(key).map(String::as_str)
    }
}
