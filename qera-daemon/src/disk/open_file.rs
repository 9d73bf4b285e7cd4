//! A file that is read. The daemon never writes into one that is there.

use std::io::{Read, Result};
use std::path::Path;

use crate::disk::ends::must_end;
use crate::disk::handle::{Handle, Opening};
use crate::disk::identity::Identity;
use crate::disk::tried::tried;

/// An open file.
#[derive(Debug)]
pub(crate) struct OpenFile(Handle);

impl OpenFile {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// The system's error, or the error that it is a pipe, a socket or a device.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        tried(|| must_end(path).and_then(|()| Handle::open(path, Opening::Read))).map(Self)
    }

    /// The file as it is now.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn identity(&self) -> Result<Identity> {
        tried(|| self.0.stat()).map(Identity::from)
    }

    /// Who may read and write it.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn mode(&self) -> Result<u32> {
        tried(|| self.0.stat()).map(|stat| stat.mode)
    }

    /// Whether its mode lets everybody on the machine read or write it.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn is_open_to_everybody(&self) -> Result<bool> {
        Ok(self.mode()? & 0o006 != 0)
    }

    /// Reads from the first byte on.
    #[must_use]
    pub(crate) const fn reader(&self) -> Reader<'_> {
        Reader { file: self, at: 0 }
    }

    /// The first bytes: `count` of them, or all where the file has fewer.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn first_bytes(&self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader().take(count as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Fills the buffer with bytes from `start` on.
    ///
    /// # Errors
    /// The system's error, also where the file ends before the buffer is full.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], start: u64) -> Result<()> {
        tried(|| self.0.read_exact_at(buffer, start))
    }
}

/// Reads an open file.
#[derive(Debug)]
pub(crate) struct Reader<'f> {
    file: &'f OpenFile,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let read = tried(|| self.file.0.read_at(buffer, self.at))?;
        self.at += read as u64;
        Ok(read)
    }
}
