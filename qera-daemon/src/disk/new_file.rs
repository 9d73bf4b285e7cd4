//! A file that is written from its first byte to its last, then synced.

use std::fs::File;
use std::io::{Result as IoResult, Write};
use std::path::{Path, PathBuf};

use crate::error::Fatal;

/// A file being written.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
}

impl NewFile {
    /// Creates it, empty.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn create(path: &Path) -> Result<Self, Fatal> {
        Ok(Self {
            path: path.to_path_buf(),
            file: File::create(path).map_err(Fatal::io(path, "create"))?,
        })
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn sync(self) -> Result<(), Fatal> {
        self.file.sync_all().map_err(Fatal::io(&self.path, "sync"))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> IoResult<()> {
        self.file.flush()
    }
}
