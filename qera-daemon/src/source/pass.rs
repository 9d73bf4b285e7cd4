//! One pass over a shard file, from its first byte to its last: every byte is read once, and hashed
//! while it is in the cache. The file is read, not mapped: its producer may still hold it.

use core::time::Duration;
use std::io::Result;

use crate::disk::clock::{now, since};
use crate::disk::open_file::OpenFile;
use crate::disk::storage_reads::StorageReads;
use crate::host::core_time::{WorkKind, doing};

/// Bytes that are read, hashed and checked at a time: half of them fill the second cache of a small
/// core, and a piece is hashed at the full rate of BLAKE3's trees.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// What a pass took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PassCost {
    /// Bytes read.
    pub(crate) bytes: u64,
    /// Those of them that came from the device under the file system, as far as the system says.
    pub(crate) storage_bytes: u64,
    /// Time in reads.
    pub(crate) reading: Duration,
    /// Time in the hash.
    pub(crate) hashing: Duration,
    /// Time in checks, and in dropping rows that do not count.
    pub(crate) checking: Duration,
}

/// The pass.
pub(crate) struct Pass<'f> {
    file: &'f OpenFile,
    at: u64,
    /// None where some rows are read again of a file whose content is known.
    hasher: Option<blake3::Hasher>,
    /// Where bytes go that nobody keeps.
    unkept: Vec<u8>,
    before: StorageReads,
    cost: PassCost,
}

/// A pass that has come to the end.
pub(crate) struct WholePass {
    /// BLAKE3 of every byte, in hexadecimal.
    pub(crate) content: String,
    /// What it took.
    pub(crate) cost: PassCost,
}

impl<'f> Pass<'f> {
    /// From the first byte on.
    pub(crate) fn new(file: &'f OpenFile) -> Self {
        Self {
            hasher: Some(blake3::Hasher::new()),
            ..Self::unhashed(file, 0)
        }
    }

    /// From this byte on, and what goes by is not hashed.
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

    /// Reads the next bytes, at most a piece of them where they are to stay in the cache.
    ///
    /// # Errors
    /// What the system says, and where the file ends before.
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

    /// Passes by what nobody keeps, up to this byte.
    ///
    /// # Errors
    /// As [`take`](Self::take).
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

    /// Says that what was taken was checked since then.
    pub(crate) fn checked(&mut self, since_then: Duration) {
        self.cost.checking += since_then;
    }

    /// Takes the rest, and says what all of it is.
    ///
    /// # Errors
    /// As [`take`](Self::take).
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
