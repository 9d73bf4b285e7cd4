//! What tells whether a path still names the file that was looked at.

use std::fs::Metadata;
use std::io::Result;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::tried::tried;

/// A file as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Length.
    pub(crate) bytes: u64,
    device: u64,
    inode: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

impl Identity {
    /// Of what a path names now.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        tried(|| std::fs::metadata(path)).map(|metadata| Self::from(&metadata))
    }

    /// When it was written last: seconds since 1970, by the file system's clock.
    #[must_use]
    pub(crate) fn modified(&self) -> String {
        let (seconds, rest) = (self.modified_seconds, self.modified_nanoseconds);
        format!("{seconds}.{rest:09}")
    }

    /// Its number in the file system: another for a folder that was replaced.
    #[must_use]
    pub(crate) const fn inode(&self) -> u64 {
        self.inode
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
        }
    }
}
