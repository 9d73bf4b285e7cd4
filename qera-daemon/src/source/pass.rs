//! A pass over a shard file from its first byte to its last. Every byte is read once, and hashed
//! while it is in the cache. The file is read and not mapped, because its producer may still hold
//! it.

use core::time::Duration;
use std::io::Result;

use crate::disk::clock::{now, since};
use crate::disk::open_file::OpenFile;
use crate::disk::storage_reads::StorageReads;
use crate::host::core_time::{WorkKind, doing};

/// Bytes that are read, hashed and checked at a time. Half of this fills the second-level cache of
/// a small core, and pieces of this size are hashed at the full rate of BLAKE3's trees.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// The cost of a pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PassCost {
    /// Bytes read.
    pub(crate) bytes: u64,
    /// How many of them came from the device under the file system, as far as the system tells.
    pub(crate) storage_bytes: u64,
    /// Time spent on reading.
    pub(crate) reading: Duration,
    /// Time spent on hashing.
    pub(crate) hashing: Duration,
    /// Time spent on checking, and on dropping rows that do not count.
    pub(crate) checking: Duration,
}

/// A pass that is under way.
pub(crate) struct Pass<'f> {
    file: &'f OpenFile,
    at: u64,
    /// `None` where some rows are read again from a file whose content is known.
    hasher: Option<blake3::Hasher>,
    /// Takes bytes that nobody keeps.
    unkept: Vec<u8>,
    before: StorageReads,
    cost: PassCost,
}

/// A pass that has come to the end.
pub(crate) struct WholePass {
    /// BLAKE3 of every byte, in hexadecimal.
    pub(crate) content: String,
    /// The cost of the pass.
    pub(crate) cost: PassCost,
}

impl<'f> Pass<'f> {
    /// A pass that begins at the first byte.
    pub(crate) fn new(file: &'f OpenFile) -> Self {
        Self {
            hasher: Some(blake3::Hasher::new()),
            ..Self::unhashed(file, 0)
        }
    }

    /// A pass that begins at byte `at` and does not hash.
    pub(crate) fn unhashed(file: &'f OpenFile, at: u64) -> Self {
        Self {
            file,
            at,
            hasher: None,
            unkept: Vec::new(),
            before: StorageReads::so_far(),
            cost: PassCost::default(),
        }
    }

    /// Reads the next bytes. To stay in the cache they must be at most a piece.
    ///
    /// # Errors
    /// The system's error, also for a file that ends too early.
    pub(crate) fn take(&mut self, bytes: &mut [u8]) -> Result<()> {
        let begun = now();
        doing(WorkKind::Read, || self.file.read_exact_at(bytes, self.at))?;
        let read = now();
        if let Some(hasher) = &mut self.hasher {
            doing(WorkKind::Hash, || {
                hasher.update(bytes);
            });
        }
        self.at += bytes.len() as u64;
        self.cost.bytes += bytes.len() as u64;
        self.cost.reading += read.duration_since(begun);
        self.cost.hashing += since(read);
        Ok(())
    }

    /// Skips the bytes up to `end`, which nobody keeps.
    ///
    /// # Errors
    /// Reading fails, as for [`take`](Self::take).
    pub(crate) fn pass_to(&mut self, end: u64) -> Result<()> {
        let mut unkept = core::mem::take(&mut self.unkept);
        while self.at < end {
            let left = usize::try_from(end - self.at).unwrap_or(PIECE_BYTES);
            unkept.resize(left.min(PIECE_BYTES), 0);
            self.take(&mut unkept)?;
        }
        self.unkept = unkept;
        Ok(())
    }

    /// Books the time since `since_then` as spent on checking.
    pub(crate) fn checked(&mut self, since_then: Duration) {
        self.cost.checking += since_then;
    }

    /// Reads the rest, and returns hash and cost of the whole file.
    ///
    /// # Errors
    /// Reading fails, as for [`take`](Self::take).
    pub(crate) fn end(mut self, length: u64) -> Result<WholePass> {
        self.pass_to(length)?;
        self.cost.storage_bytes = self.before.bytes_since().min(self.cost.bytes);
        Ok(WholePass {
            content: self
                .hasher
                .map(|hasher| hasher.finalize().to_hex().to_string())
                .unwrap_or_default(),
            cost: self.cost,
        })
    }
}
