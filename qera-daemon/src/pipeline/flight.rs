//! Shards in memory are bounded in number and in bytes, whatever the producers write. A shard is
//! read when there is room for it, and the room is free again when every worker has folded its
//! part.
//!
//! A shard that is larger than all the room is alone in memory.

use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::channel::{Receiver, Sender, bounded};
use crate::disk::clock::{now, since};
use crate::plan::stages::{FLIGHT_BYTES, SHARDS_IN_FLIGHT};

/// Counts the shards in memory.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    aboard: Arc<Aboard>,
}

/// Holds the room of one shard until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    aboard: Arc<Aboard>,
    bytes: u64,
}

/// A ticket, and how long the feeder waited for it.
#[derive(Debug)]
pub(crate) struct Boarding {
    /// The ticket.
    pub(crate) ticket: Ticket,
    /// Waiting while the number of shards was at its limit: for the workers that fold them.
    pub(crate) for_workers: Duration,
    /// Waiting while fewer shards than that had too many bytes.
    pub(crate) for_memory: Duration,
}

#[derive(Debug)]
struct Aboard {
    load: Mutex<Load>,
    /// Receives a message when a shard has gone since anyone looked.
    gone: Sender<()>,
    lighter: Receiver<()>,
}

impl Default for Aboard {
    fn default() -> Self {
        let (gone, lighter) = bounded(1);
        Self {
            load: Mutex::default(),
            gone,
            lighter,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    shards: usize,
    bytes: u64,
}

impl Load {
    const fn has_room(self, bytes: u64) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= FLIGHT_BYTES;
        self.shards == 0 || (self.shards < SHARDS_IN_FLIGHT && fits)
    }
}

impl Flight {
    /// Waits until there is room for a shard of this many bytes. Only one caller waits at a time.
    pub(crate) fn board(&self, bytes: u64) -> Boarding {
        let (mut for_workers, mut for_memory) = (Duration::ZERO, Duration::ZERO);
        while let Some(full) = self.aboard.take(bytes) {
            let waits_for = if full.shards < SHARDS_IN_FLIGHT {
                &mut for_memory
            } else {
                &mut for_workers
            };
            let begun = now();
            // This struct holds the sender as well, so that the channel is never closed.
            let _ = self.aboard.lighter.recv();
            *waits_for += since(begun);
        }
        Boarding {
            ticket: Ticket {
                aboard: Arc::clone(&self.aboard),
                bytes,
            },
            for_workers,
            for_memory,
        }
    }
}

impl Aboard {
    fn load(&self) -> MutexGuard<'_, Load> {
        self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a shard of this many bytes. Where there is none, returns what is in memory.
    fn take(&self, bytes: u64) -> Option<Load> {
        let mut load = self.load();
        if !load.has_room(bytes) {
            return Some(*load);
        }
        load.shards += 1;
        load.bytes = load.bytes.saturating_add(bytes);
        None
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut load = self.aboard.load();
        load.shards -= 1;
        load.bytes = load.bytes.saturating_sub(self.bytes);
        drop(load);
        // If a message is in the channel already, whoever waits has not looked yet.
        let _ = self.aboard.gone.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    #[test]
    fn there_is_room_for_three_and_for_so_many_bytes() {
        let load = |shards, bytes| Load { shards, bytes };
        assert!(load(0, 0).has_room(u64::MAX), "a larger one goes alone");
        assert!(!load(1, 1).has_room(FLIGHT_BYTES));
        assert!(load(1, 1).has_room(FLIGHT_BYTES - 1));
        assert!(!load(1, u64::MAX).has_room(1));
        assert!(load(2, 2).has_room(1) && !load(3, 3).has_room(1));
    }

    /// Whatever sizes come, there are never more shards or bytes than the limits, and every shard
    /// gets through.
    #[test]
    fn it_is_bounded() {
        let flight = Flight::default();
        let (shards, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
        let sizes = [3, FLIGHT_BYTES, 7, FLIGHT_BYTES / 2, 2 * FLIGHT_BYTES, 1];
        let (sent, tickets) = std::sync::mpsc::channel::<Boarding>();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for boarding in tickets {
                    std::thread::sleep(Duration::from_micros(50));
                    shards.fetch_sub(1, Ordering::SeqCst);
                    bytes.fetch_sub(boarding.ticket.bytes, Ordering::SeqCst);
                    drop(boarding);
                }
            });
            for size in sizes.into_iter().cycle().take(600) {
                let boarding = flight.board(size);
                let now = shards.fetch_add(1, Ordering::SeqCst) + 1;
                let most = bytes.fetch_add(size, Ordering::SeqCst) + size;
                assert!(now <= SHARDS_IN_FLIGHT);
                assert!(most <= FLIGHT_BYTES || now == 1, "{most} bytes of {now}");
                sent.send(boarding).unwrap();
            }
            drop(sent);
        });
        let load = *flight.aboard.load.lock().unwrap();
        assert_eq!(load, Load::default());
    }
}
