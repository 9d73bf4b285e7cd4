//! A file that only grows: the journal's.

use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};

use crate::disk::handle::{Handle, Opening};
use crate::disk::new_file::PRIVATE;
use crate::disk::room::when_there_is_room;
use crate::disk::tried::tried;

/// A file to which bytes are only appended.
#[derive(Debug)]
pub(crate) struct AppendFile {
    path: PathBuf,
    file: Handle,
}

impl AppendFile {
    /// Opens the file, or creates it empty. Nobody else may read it.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = tried(|| Handle::open(path, Opening::Append(PRIVATE)))?;
        file.set_mode(PRIVATE)?;
        let path = path.to_path_buf();
        Ok(Self { path, file })
    }

    /// Writes at the file's end.
    ///
    /// # Errors
    /// The system's error; a part may have been written then.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let written = when_there_is_room(&self.path, || self.file.write(left))?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            left = left.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Drops what is beyond this length.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn truncate(&self, bytes: u64) -> Result<()> {
        self.file.set_len(bytes)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data()
    }
}
