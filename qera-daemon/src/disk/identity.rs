//! The identity of a file: what tells whether a path still names the file that was looked at.

use std::io::Result;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::system::{FileStat, stat};
use crate::disk::tried::tried;

/// A file's identity when it was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The file's length.
    pub(crate) bytes: u64,
    device: u64,
    inode: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

impl Identity {
    /// The identity of the file that a path names now.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        tried(|| stat(path)).map(Self::from)
    }

    /// When the file was last written: seconds since 1970, by the file system's clock.
    #[must_use]
    pub(crate) fn modified(&self) -> String {
        let (seconds, rest) = (self.modified_seconds, self.modified_nanoseconds);
        format!("{seconds}.{rest:09}")
    }

    /// The identity in bytes, for a digest.
    #[must_use]
    pub(crate) fn to_bytes(self) -> [u8; 40] {
        let parts = [
            self.bytes.to_le_bytes(),
            self.device.to_le_bytes(),
            self.inode.to_le_bytes(),
            self.modified_seconds.to_le_bytes(),
            self.modified_nanoseconds.to_le_bytes(),
        ];
        let mut bytes = [0; 40];
        bytes.copy_from_slice(parts.as_flattened());
        bytes
    }

    /// The file's number in the file system. A folder that was replaced has another one.
    #[must_use]
    pub(crate) const fn inode(&self) -> u64 {
        self.inode
    }
}

impl From<FileStat> for Identity {
    fn from(stat: FileStat) -> Self {
        Self {
            bytes: stat.bytes,
            device: stat.device,
            inode: stat.inode,
            modified_seconds: stat.modified_seconds,
            modified_nanoseconds: stat.modified_nanoseconds,
        }
    }
}
