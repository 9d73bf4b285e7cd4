//! A file that is written from its first byte to its last, then synced.

use std::io::{Result as IoResult, Write};
use std::path::{Path, PathBuf};

use crate::disk::handle::{Handle, Opening};
use crate::disk::room::when_there_is_room;
use crate::error::Fatal;

/// The mode by which only the owner may read and write.
pub(crate) const PRIVATE: u32 = 0o600;
/// The bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o777;

/// A file being written.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: Handle,
}

impl NewFile {
    /// Creates an empty file.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn create(path: &Path) -> Result<Self, Fatal> {
        let file = when_there_is_room(path, || Handle::open(path, Opening::Write(None)));
        Ok(Self {
            path: path.to_path_buf(),
            file: file.map_err(Fatal::io(path, "create"))?,
        })
    }

    /// Creates an empty file that nobody else may read, whatever the umask.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn create_private(path: &Path) -> Result<Self, Fatal> {
        Self::create_with(path, PRIVATE)
    }

    /// Creates an empty file with these permissions, whatever the umask. Until it has them, nobody
    /// else has any.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn create_with(path: &Path, mode: u32) -> Result<Self, Fatal> {
        let opening = Opening::Write(Some(PRIVATE));
        let file = when_there_is_room(path, || Handle::open(path, opening));
        let file = file.map_err(Fatal::io(path, "create"))?;
        file.set_mode(mode & PERMISSIONS)
            .map_err(Fatal::io(path, "set the permissions of"))?;
        let path = path.to_path_buf();
        Ok(Self { path, file })
    }

    /// Makes the file durable.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn sync(self) -> Result<(), Fatal> {
        self.file.sync().map_err(Fatal::io(&self.path, "sync"))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        when_there_is_room(&self.path, || self.file.write(bytes))
    }

    fn flush(&mut self) -> IoResult<()> {
        Ok(()) // Nothing is kept back.
    }
}
