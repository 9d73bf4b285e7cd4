//! The event that says what taking shards in took.

use core::fmt;

use serde::Serialize;

use crate::settings::memory_budget::format_bytes;

/// What sets the pace at which shards are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Limit {
    /// Reading from the device under the file system.
    Disk,
    /// Reading from the page cache.
    PageCache,
    /// Hashing and checking.
    Hash,
    /// Room in memory for reading a shard while another is folded.
    Memory,
    /// Folding rows.
    Accumulation,
    /// Solves of a live run, for which workers wait.
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

/// The cost of one part of taking shards in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct IngestPart {
    /// The bytes that went through it.
    pub(crate) bytes: u64,
    /// The seconds that it took.
    pub(crate) seconds: f64,
}

/// The cost of taking in the shards since the last such event.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct IngestEnded {
    /// The part that set the pace.
    pub(crate) limit: Limit,
    /// Shards that were read.
    pub(crate) shards: usize,
    /// Reading from the device under the file system; all reading where the system does not tell.
    pub(crate) disk: IngestPart,
    /// Reading from the page cache.
    pub(crate) page_cache: IngestPart,
    /// Hashing.
    pub(crate) hash: IngestPart,
    /// Checking.
    pub(crate) check: IngestPart,
    /// Waiting for room for shards; the bytes are those of the largest shard.
    pub(crate) memory: IngestPart,
    /// Folding; the seconds are those of all workers together.
    pub(crate) accumulation: IngestPart,
    /// Seconds during which the next shard waited for workers or for a core.
    pub(crate) waited_for_accumulation: f64,
    /// Seconds that a worker waited for shards, on average.
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
