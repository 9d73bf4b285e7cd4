//! The right to use a core. At most `--threads` cores are in use at any time, whoever computes.
//!
//! A stage takes a core before it computes and gives it back when it waits. Work in independent
//! pieces is spread over the cores that are idle at that moment ([`Cores::spread`]). So layers go
//! side by side while there are many, and one large layer gets the cores that others leave. The
//! pieces are cut by sizes alone, so that no result depends on the number of cores.

use std::sync::{Mutex, PoisonError};

use crate::channel::{Receiver, Sender, bounded};
use crate::host::core_time::{at_work, doing_for};

/// The cores that may be used.
#[derive(Debug)]
pub struct Cores {
    tokens: (Sender<()>, Receiver<()>),
}

/// The right to use a core, until it is dropped.
#[derive(Debug)]
pub struct Core<'a>(&'a Sender<()>);

impl Drop for Core<'_> {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Cores {
    /// Permits to use this number of cores, at least one.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let threads = threads.max(1);
        let tokens = bounded(threads);
        for _ in 0..threads {
            // As many tokens as the channel holds.
            let _ = tokens.0.send(());
        }
        Self { tokens }
    }

    /// Waits for a core.
    #[must_use]
    pub fn take(&self) -> Core<'_> {
        // The channel lives as long as `self` and holds one token for each core.
        let _ = self.tokens.1.recv();
        Core(&self.tokens.0)
    }

    /// Takes a core, if one is idle.
    fn idle(&self) -> Option<Core<'_>> {
        let token = self.tokens.1.try_recv();
        token.ok().map(|()| Core(&self.tokens.0))
    }

    /// Does `work` on every piece, on the caller's core and on those that are idle now.
    pub fn spread<T: Send>(&self, pieces: Vec<T>, work: impl Fn(T) + Sync) {
        let more = pieces.len().saturating_sub(1);
        let helpers: Vec<_> = core::iter::from_fn(|| self.idle()).take(more).collect();
        if helpers.is_empty() {
            pieces.into_iter().for_each(work);
            return;
        }
        let queue = Mutex::new(pieces.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let take_turns = || {
            while let Some(piece) = next() {
                work(piece);
            }
        };
        let kind = at_work();
        std::thread::scope(|scope| {
            for core in helpers {
                // The scope passes a panic in a piece on.
                scope.spawn(move || {
                    let _core = core;
                    doing_for(kind, take_turns);
                });
            }
            take_turns();
        });
    }
}
