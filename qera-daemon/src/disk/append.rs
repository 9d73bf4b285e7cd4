//! A file that only grows: the journal's.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Result, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::disk::new_file::PRIVATE;
use crate::disk::tried::tried;

/// A file to whose end is written.
#[derive(Debug)]
pub(crate) struct AppendFile(File);

impl AppendFile {
    /// Opens it, or begins it empty; nobody else may read it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(PRIVATE);
        let file = tried(|| options.open(path))?;
        file.set_permissions(Permissions::from_mode(PRIVATE))?;
        Ok(Self(file))
    }

    /// Writes to its end.
    ///
    /// # Errors
    /// What the system says; a part may have been written then.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes)
    }

    /// Drops what is beyond this length.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn truncate(&self, bytes: u64) -> Result<()> {
        self.0.set_len(bytes)
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn sync(&self) -> Result<()> {
        self.0.sync_data()
    }
}
