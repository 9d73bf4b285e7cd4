//! What `status` shows, kept up to date by all stages and written to the state at most once a second.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::observe::status::{Status, Work};
use crate::state::StateFolder;

const PERIOD: Duration = Duration::from_secs(1);

/// The status of a run.
#[derive(Debug)]
pub(crate) struct Board<'a> {
    /// Where it is written; nowhere for `solve`.
    state: Option<&'a StateFolder>,
    status: Mutex<(Status, Option<Instant>)>,
    accumulate: AtomicU64,
    score: AtomicU64,
    solve: AtomicU64,
    spared: AtomicU64,
}

impl<'a> Board<'a> {
    /// Begins with this status.
    #[must_use]
    pub(crate) const fn new(state: Option<&'a StateFolder>, status: Status) -> Self {
        Self {
            state,
            status: Mutex::new((status, None)),
            accumulate: AtomicU64::new(0),
            score: AtomicU64::new(0),
            solve: AtomicU64::new(0),
            spared: AtomicU64::new(0),
        }
    }

    /// Changes the status; it is written if the last writing is a second ago.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.write(change, PERIOD);
    }

    /// Changes the status and writes it.
    pub(crate) fn update_now(&self, change: impl FnOnce(&mut Status)) {
        self.write(change, Duration::ZERO);
    }

    /// Rows folded of a layer's input.
    pub(crate) fn rows(&self, layer: usize) -> u64 {
        let guard = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0.layers.get(layer).map_or(0, |l| l.rows)
    }

    /// Rows left out of a layer's input.
    pub(crate) fn rows_skipped(&self, layer: usize) -> u64 {
        let guard = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0.layers.get(layer).map_or(0, |l| l.rows_skipped)
    }

    /// Of the rows that were dealt to these layers, so many were left out so far.
    pub(crate) fn skipped(&self, layers: &[usize], rows: u64) {
        self.update(|status| {
            for &layer in layers {
                let layer = &mut status.layers[layer];
                layer.rows = layer.rows + layer.rows_skipped - rows;
                layer.rows_skipped = rows;
            }
        });
    }

    /// Shards refused, and the first reasons.
    pub(crate) fn refused(&self) -> (usize, Vec<String>) {
        let guard = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        (guard.0.quarantined, guard.0.reasons.clone())
    }

    fn write(&self, change: impl FnOnce(&mut Status), period: Duration) {
        let mut guard = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, written) = &mut *guard;
        change(status);
        if written.is_some_and(|at| at.elapsed() < period) {
            return;
        }
        let seconds = |nanos: &AtomicU64| nanos.load(Ordering::Relaxed) as f64 / 1e9;
        status.work = Work {
            accumulate: seconds(&self.accumulate),
            score: seconds(&self.score),
            solve: seconds(&self.solve),
            spared: self.spared.load(Ordering::Relaxed),
        };
        *written = Some(Instant::now());
        if let Some(state) = self.state {
            // Nothing depends on it; a full disk is met, and told, where something does.
            let _ = state.save_status(status);
        }
    }

    /// Writes what [`update`](Self::update) left unwritten.
    pub(crate) fn flush(&self) {
        self.write(|_| (), Duration::ZERO);
    }

    /// Counts a solve point at which no layer of the site could gain by a solve.
    pub(crate) fn spared(&self) {
        self.spared.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds to the time of folding rows.
    pub(crate) fn accumulated(&self, time: Duration) {
        add(&self.accumulate, time);
    }

    /// Adds to the times of a solve and of the scoring in it.
    pub(crate) fn solved(&self, time: Duration, scoring: Duration) {
        add(&self.solve, time.saturating_sub(scoring));
        add(&self.score, scoring);
    }
}

fn add(sum: &AtomicU64, time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    sum.fetch_add(nanos, Ordering::Relaxed);
}
