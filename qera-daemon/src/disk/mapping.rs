//! The one place of the disk with `unsafe`: a checkpoint file, an imatrix or a GGUF adapter mapped
//! read-only.
#![allow(unsafe_code)]

use core::ops::Deref;
use std::io::ErrorKind;
use std::path::Path;

use memmap2::Mmap;

use crate::disk::ends::must_end;
use crate::disk::handle::{Handle, Opening};
use crate::disk::tried::tried;

/// A mapped file.
#[derive(Debug)]
pub(crate) struct Mapping(Mapped);

#[derive(Debug)]
enum Mapped {
    File(Mmap),
    /// A file of a disk in memory.
    #[cfg(test)]
    Memory(Vec<u8>),
}

impl Mapping {
    /// Maps a checkpoint file, an imatrix, or a GGUF adapter, all of which are published whole.
    /// Activation shards are never mapped, because their writers may still hold them.
    ///
    /// # Errors
    /// The system's error from opening or mapping the file.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let handle = tried(|| must_end(path).and_then(|()| Handle::open(path, Opening::Read)))?;
        #[cfg(test)]
        if let Handle::Simulated(file) = &handle {
            return file.all_bytes().map(Mapped::Memory).map(Self);
        }
        let file = handle.of_system().ok_or(ErrorKind::Unsupported)?;
        // SAFETY: the mapping is read-only and private to this process. The promise that memmap2
        // asks for, that nobody truncates or rewrites the file meanwhile, is the user's: a
        // checkpoint that is being served or corrected is not edited in place (stated in README.md,
        // "Limits"), and neither is an imatrix, which is mapped only while it is read at the start.
        // If it is broken, the process ends by SIGBUS or reads other weights; the fingerprint in
        // the manifest then differs.
        unsafe { Mmap::map(file) }.map(Mapped::File).map(Self)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Mapped::File(bytes) => bytes,
            #[cfg(test)]
            Mapped::Memory(bytes) => bytes,
        }
    }
}
