//! The one place of the disk with `unsafe`: a checkpoint file, an imatrix or a GGUF adapter mapped
//! read-only.
#![allow(unsafe_code)]

use core::ops::Deref;
use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::disk::ends::must_end;
use crate::disk::tried::tried;

/// A mapped file: its bytes.
#[derive(Debug)]
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps a checkpoint file, an imatrix, or a GGUF adapter, which is published whole. Activation shards are never mapped: their writers may still hold
    /// them.
    ///
    /// # Errors
    /// What the system says to opening or mapping the file.
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let file = tried(|| must_end(path).and_then(|()| File::open(path)))?;
        // SAFETY: the mapping is read-only and private to this process. The promise that memmap2
        // asks for, that nobody truncates or rewrites the file meanwhile, is the user's: a
        // checkpoint that is being served or corrected is not edited in place (stated in README.md,
        // "Limits"), and neither is an imatrix, which is mapped only while it is read at the start.
        // If it is broken, the process ends by SIGBUS or reads other weights; the fingerprint in the
        // manifest then differs.
        unsafe { Mmap::map(&file) }.map(Self)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
