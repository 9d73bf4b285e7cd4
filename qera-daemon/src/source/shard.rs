//! The header of a shard, read and checked against the file's length.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::disk::identity::Identity;
use crate::disk::open_file::OpenFile;
use crate::formats::safetensors::header::{Claim, Header};
use crate::source::refusal::{Reason, Refusal};
use crate::source::sum_counts::SumCounts;

/// The ending of a mask's key, after the key of its rows.
pub(crate) const MASK: &str = "::mask";
/// The ending of the key of row weights, after the key of their rows.
pub(crate) const WEIGHT: &str = "::weight";

/// The key of the rows that this mask, or these weights, belong to.
#[must_use]
pub(crate) fn owner_of(key: &str) -> Option<&str> {
    key.strip_suffix(MASK).or_else(|| key.strip_suffix(WEIGHT))
}

/// Whether this is a mask or weights of another mask or weights, which nobody reads.
#[must_use]
pub(crate) fn owns_nothing(key: &str) -> bool {
    owner_of(key).and_then(owner_of).is_some()
}

/// A shard's header.
#[derive(Debug)]
pub(crate) struct ShardHeader {
    /// The file's path.
    pub(crate) path: PathBuf,
    /// The file's name, for messages.
    pub(crate) name: String,
    header: Header,
    identity: Identity,
    sum_counts: SumCounts,
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
        let refuse = |error| Refusal {
            shard: name.clone(),
            reason: Reason::Header(error),
        };
        let unread = |error: std::io::Error| refuse(error.into());
        let file = OpenFile::open(path).map_err(unread)?;
        let identity = file.identity().map_err(unread)?;
        let header = Header::read(file.reader(), identity.bytes).map_err(refuse)?;
        let sum_counts = SumCounts::read(&file, &header.claims).map_err(unread)?;
        Ok(Self {
            path: path.to_path_buf(),
            name,
            header,
            identity,
            sum_counts,
        })
    }

    /// The file's name in the folder, which need not be text.
    #[must_use]
    pub(crate) fn file_name(&self) -> OsString {
        self.path.file_name().unwrap_or_default().to_owned()
    }

    /// The tensors, in the order of the file.
    #[must_use]
    pub(crate) fn claims(&self) -> &[Claim] {
        &self.header.claims
    }

    /// The file's identity when the header was read.
    #[must_use]
    pub(crate) const fn identity(&self) -> Identity {
        self.identity
    }

    /// The number of rows of the sum that this tensor counts.
    #[must_use]
    pub(crate) fn sum_rows(&self, key: &str) -> Option<i64> {
        self.sum_counts.get(key)
    }

    /// A value of the header's metadata.
    #[must_use]
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata.get(key).map(String::as_str)
    }
}
