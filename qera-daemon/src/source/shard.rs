//! What a shard claims to hold: its header, read and checked against the file's length.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::disk::identity::Identity;
use crate::disk::open_file::OpenFile;
use crate::formats::safetensors::header::{Claim, Header};
use crate::source::refusal::{Reason, Refusal};
use crate::source::sum_counts::SumCounts;

/// What follows a module's name in that of its mask.
pub(crate) const MASK: &str = "::mask";
/// And in that of the weights of its rows.
pub(crate) const WEIGHT: &str = "::weight";

/// The key of the rows that a tensor says something of, being their mask or weights.
#[must_use]
pub(crate) fn owner_of(key: &str) -> Option<&str> {
    key.strip_suffix(MASK).or_else(|| key.strip_suffix(WEIGHT))
}

/// Whether it would say something of what is itself a mask or weights: nobody reads it.
#[must_use]
pub(crate) fn owns_nothing(key: &str) -> bool {
    owner_of(key).and_then(owner_of).is_some()
}

/// A shard's header.
#[derive(Debug)]
pub(crate) struct ShardHeader {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its name, for messages.
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
        self.identity
    }

    /// Of how many rows the sum is that this tensor counts.
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
