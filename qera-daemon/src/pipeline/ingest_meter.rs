//! Measures what taking shards in costs, and which part of it sets the pace.

use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::disk::clock::now;
use crate::observe::ingest_events::{IngestEnded, IngestPart, Limit};
use crate::pipeline::flight::Boarding;
use crate::source::pass::PassCost;

/// What was measured since the last report.
#[derive(Debug, Default)]
pub(crate) struct IngestMeter(Mutex<MeterReading>);

#[derive(Debug, Clone, Copy, Default)]
struct MeterReading {
    /// When the first shard since the last report was begun.
    begun: Option<Instant>,
    shards: usize,
    /// Shards read from the disk and from the page cache, hashed and checked.
    disk: Cost,
    cache: Cost,
    hash: Cost,
    check: Cost,
    /// Time that the feeder waited for room in memory.
    memory: Cost,
    /// Time that the feeder waited for workers, or for a core that they had.
    workers: Duration,
    /// Time that all workers together spent on folding.
    folding: Duration,
    /// Time that all workers together waited for shards.
    shards_awaited: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    bytes: u64,
    time: Duration,
}

impl Cost {
    fn add(&mut self, bytes: u64, time: Duration) {
        self.bytes += bytes;
        self.time += time;
    }

    const fn part(self) -> IngestPart {
        IngestPart {
            bytes: self.bytes,
            seconds: self.time.as_secs_f64(),
        }
    }
}

impl IngestMeter {
    fn with(&self, enter: impl FnOnce(&mut MeterReading)) {
        enter(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes that the feeder turns to a shard.
    pub(crate) fn begin(&self) {
        self.with(|of| {
            of.begun.get_or_insert_with(now);
        });
    }

    /// Notes that the feeder waited for room for a shard of this many bytes.
    pub(crate) fn boarded(&self, bytes: u64, boarding: &Boarding) {
        self.with(|of| {
            of.memory.bytes = of.memory.bytes.max(bytes);
            of.memory.time += boarding.for_memory;
            of.workers += boarding.for_workers;
        });
    }

    /// Notes that the feeder waited for workers.
    pub(crate) fn waited_for_workers(&self, time: Duration) {
        self.with(|of| of.workers += time);
    }

    /// Notes that the feeder read a shard. Its reads count as the disk's if most of the bytes came
    /// from there.
    pub(crate) fn read(&self, cost: &PassCost) {
        self.with(|of| {
            of.shards += 1;
            of.disk.bytes += cost.storage_bytes;
            of.cache.bytes += cost.bytes - cost.storage_bytes;
            if 2 * cost.storage_bytes >= cost.bytes {
                of.disk.time += cost.reading;
            } else {
                of.cache.time += cost.reading;
            }
            of.hash.add(cost.bytes, cost.hashing);
            of.check.add(cost.bytes, cost.checking);
        });
    }

    /// Notes that a worker folded rows.
    pub(crate) fn folded(&self, time: Duration) {
        self.with(|of| of.folding += time);
    }

    /// Notes that a worker has waited for a shard since this moment. The time before the feeder
    /// turned to that shard does not count.
    pub(crate) fn shard_awaited(&self, waiting: Instant) {
        let arrived = now();
        self.with(|of| {
            let begun = of.begun.unwrap_or(arrived).max(waiting);
            of.shards_awaited += arrived.saturating_duration_since(begun);
        });
    }

    /// Returns what was measured, and begins anew; `None` where no shard was read.
    pub(crate) fn take(&self, workers: usize) -> Option<IngestEnded> {
        let mut measured = MeterReading::default();
        self.with(|of| measured = core::mem::take(of));
        (measured.shards > 0).then(|| measured.told(workers))
    }
}

impl MeterReading {
    fn told(&self, workers: usize) -> IngestEnded {
        IngestEnded {
            limit: self.limit(workers),
            shards: self.shards,
            disk: self.disk.part(),
            page_cache: self.cache.part(),
            hash: self.hash.part(),
            check: self.check.part(),
            memory: self.memory.part(),
            accumulation: IngestPart {
                bytes: self.hash.bytes,
                seconds: self.folding.as_secs_f64(),
            },
            waited_for_accumulation: self.workers.as_secs_f64(),
            waited_for_shards: self.idle(workers).as_secs_f64(),
        }
    }

    /// The average time that a worker waited for shards.
    fn idle(&self, workers: usize) -> Duration {
        let workers = u32::try_from(workers.max(1)).unwrap_or(u32::MAX);
        self.shards_awaited / workers
    }

    /// Which part would make taking shards in faster if there were more of it. Reading and folding
    /// run side by side, so that the slower of the two sets the pace: it is the one that is waited
    /// for. Where neither can go on, because a shard needs room while another is being folded,
    /// memory sets the pace.
    fn limit(&self, workers: usize) -> Limit {
        let idle = self.idle(workers);
        let blocked = self.memory.time + self.workers;
        let hashing = self.hash.time + self.check.time;
        let all = self.disk.time + self.cache.time + hashing + blocked;
        // The time that reading ahead would have saved.
        if 4 * self.memory.time.min(idle) > all {
            return Limit::Memory;
        }
        if blocked >= idle {
            // While the feeder waits for folding, at least one worker folds; otherwise solves keep
            // the workers, or have their cores.
            return if 2 * self.folding < blocked {
                Limit::Solves
            } else {
                Limit::Accumulation
            };
        }
        let longest = self.disk.time.max(self.cache.time).max(hashing);
        if longest == hashing {
            Limit::Hash
        } else if longest == self.disk.time {
            Limit::Disk
        } else {
            Limit::PageCache
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(of: u64) -> Duration {
        Duration::from_secs(of)
    }

    const fn cost(of: u64) -> Cost {
        Cost {
            bytes: 1,
            time: seconds(of),
        }
    }

    #[test]
    fn the_limit_is_what_is_waited_for() {
        let none = MeterReading::default();
        let read = MeterReading {
            disk: cost(4),
            cache: cost(1),
            hash: cost(2),
            check: cost(1),
            ..none
        };
        // The feeder is blocked, and the workers hardly ever wait.
        let folds = MeterReading {
            workers: seconds(20),
            folding: seconds(15),
            shards_awaited: seconds(1),
            ..read
        };
        assert_eq!(folds.limit(1), Limit::Accumulation);
        let solves = MeterReading {
            folding: seconds(2),
            ..folds
        };
        assert_eq!(solves.limit(1), Limit::Solves);
        // The workers wait.
        let starves = MeterReading {
            shards_awaited: seconds(7),
            ..read
        };
        assert_eq!(starves.limit(1), Limit::Disk);
        let hashes = MeterReading {
            check: cost(3),
            ..starves
        };
        assert_eq!(hashes.limit(1), Limit::Hash);
        let cached = MeterReading {
            disk: cost(0),
            cache: cost(4),
            ..starves
        };
        assert_eq!(cached.limit(1), Limit::PageCache);
        // Reading and folding take turns in waiting for each other.
        let alone = MeterReading {
            memory: cost(6),
            ..starves
        };
        assert_eq!(alone.limit(1), Limit::Memory);
        // The feeder had to wait for room, but folding would have kept it waiting anyway.
        let slow = MeterReading {
            memory: cost(60),
            folding: seconds(60),
            ..starves
        };
        assert_eq!(slow.limit(1), Limit::Accumulation);
        // Seven seconds of waiting of two workers together are three and a half for each.
        assert_eq!(starves.idle(2), Duration::from_millis(3500));
    }
}
