//! A file that is hashed while it is written, and the resulting digest.

use std::io::{Read as _, Result as IoResult, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::new_file::NewFile;
use crate::disk::open_file::OpenFile;
use crate::error::Fatal;

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// The length and digest of what was written to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileDigest {
    /// The file's length in bytes.
    pub(crate) bytes: u64,
    /// BLAKE3 of the file's bytes.
    pub(crate) blake3: String,
}

impl FileDigest {
    /// The digest of a file as it is now, by reading all of it.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn of(path: &Path) -> IoResult<Self> {
        let file = OpenFile::open(path)?;
        let mut reader = file.reader();
        let mut hasher = blake3::Hasher::new();
        let mut piece = vec![0; PIECE];
        loop {
            let count = reader.read(&mut piece)?;
            if count == 0 {
                return Ok(Self::of_hasher(&hasher));
            }
            hasher.update(&piece[..count]);
        }
    }

    fn of_hasher(hasher: &blake3::Hasher) -> Self {
        Self {
            bytes: hasher.count(),
            blake3: format!("blake3:{}", hasher.finalize().to_hex()),
        }
    }

    /// How a file that now has this digest differs from what was written; `None` where it does not.
    #[must_use]
    pub(crate) fn differs(&self, now: &Self) -> Option<String> {
        if self.bytes != now.bytes {
            return Some(format!(
                "has {} bytes, {} were written",
                now.bytes, self.bytes
            ));
        }
        let is_other = self.blake3 != now.blake3;
        is_other.then(|| {
            format!(
                "is not what was written ({}, not {})",
                now.blake3, self.blake3
            )
        })
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct HashedFile {
    file: NewFile,
    hasher: blake3::Hasher,
}

impl HashedFile {
    /// Creates an empty file.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn create(path: &Path) -> Result<Self, Fatal> {
        Ok(Self {
            file: NewFile::create(path)?,
            hasher: blake3::Hasher::new(),
        })
    }

    /// Makes the file durable, and returns its digest.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn sync(self) -> Result<FileDigest, Fatal> {
        self.file.sync()?;
        Ok(FileDigest::of_hasher(&self.hasher))
    }
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> IoResult<()> {
        self.file.flush()
    }
}
