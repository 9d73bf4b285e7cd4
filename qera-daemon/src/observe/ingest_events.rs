//! What is said of taking shards in.

use core::fmt;

use serde::Serialize;

use crate::settings::memory_budget::format_bytes;

/// What sets the pace at which shards are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limit {
    /// Reads from the device under the file system.
    Disk,
    /// Reads of what the system has in memory.
    PageCache,
    /// Hashing and checking.
    Hash,
    /// Room for a shard to be read while another is folded.
    Memory,
    /// Folding.
    Accumulation,
    /// Solves, of a live run: workers wait for them.
    Solves,
}

impl Limit {
    const fn name(self) -> &'static str {
        match self {
            Self::Disk => "the disk",
            Self::PageCache => "the page cache",
            Self::Hash => "hashing",
            Self::Memory => "the memory for shards",
            Self::Accumulation => "accumulation",
            Self::Solves => "solving",
        }
    }
}

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct IngestPart {
    /// Bytes that went through it.
    pub(crate) bytes: u64,
    /// Seconds that it took.
    pub(crate) seconds: f64,
}

/// The shards that came since this was said last are folded.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct IngestEnded {
    /// What set the pace.
    pub(crate) limit: Limit,
    /// Shards that were read.
    pub(crate) shards: usize,
    /// Read from the device under the file system; all of it where the system does not say.
    pub(crate) disk: IngestPart,
    /// Read from the page cache.
    pub(crate) page_cache: IngestPart,
    /// Hashed.
    pub(crate) hash: IngestPart,
    /// Checked.
    pub(crate) check: IngestPart,
    /// The largest shard's bytes, and the wait for room for shards.
    pub(crate) memory: IngestPart,
    /// Folded: seconds of all workers together.
    pub(crate) accumulation: IngestPart,
    /// Seconds in which the next shard waited for workers or for a core.
    pub(crate) waited_for_accumulation: f64,
    /// Seconds in which a worker waited for shards, on average.
    pub(crate) waited_for_shards: f64,
}

impl fmt::Display for IngestEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            limit,
            shards,
            disk,
            page_cache,
            hash,
            check,
            memory,
            accumulation,
            waited_for_accumulation,
            waited_for_shards,
        } = self;
        write!(
            f,
            "took in {shards} shards, {}: {} sets the pace; read {} from the disk in {:.2} s and \
             {} from the page cache in {:.2} s, hashed in {:.2} s, checked in {:.2} s, folded in \
             {:.2} s; waited {:.2} s for memory, {waited_for_accumulation:.2} s for accumulation, \
             which waited {waited_for_shards:.2} s for shards",
            format_bytes(hash.bytes),
            limit.name(),
            format_bytes(disk.bytes),
            disk.seconds,
            format_bytes(page_cache.bytes),
            page_cache.seconds,
            hash.seconds,
            check.seconds,
            accumulation.seconds,
            memory.seconds,
        )
    }
}
