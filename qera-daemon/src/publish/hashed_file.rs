//! A file whose bytes are hashed on their way.

use std::io::{Result as IoResult, Write};
use std::path::Path;

use crate::disk::new_file::NewFile;
use crate::error::Fatal;

/// A file being written.
#[derive(Debug)]
pub(crate) struct HashedFile {
    file: NewFile,
    hasher: blake3::Hasher,
}

impl HashedFile {
    /// Creates it, empty.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn create(path: &Path) -> Result<Self, Fatal> {
        Ok(Self {
            file: NewFile::create(path)?,
            hasher: blake3::Hasher::new(),
        })
    }

    /// Makes it durable; returns BLAKE3 of its bytes.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn sync(self) -> Result<String, Fatal> {
        self.file.sync()?;
        Ok(format!("blake3:{}", self.hasher.finalize().to_hex()))
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
