//! What the process spends its CPU time on, by kind of work.
//!
//! Each thread books its own CPU time (CLOCK_THREAD_CPUTIME_ID), so that neither other processes
//! nor waiting count. A thread does one kind of work at a time. Work within work is booked under
//! its own kind and not under the outer one. Threads that are lent pieces of work
//! ([`Cores::spread`](crate::host::cores::Cores::spread)) book under the kind of the lender. Each
//! stretch of work costs two readings of the clock, some hundred nanoseconds each, so that
//! stretches are a tensor, a layer or a site, never a row. No result depends on these times.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use serde::Serialize;
use serde::ser::SerializeMap;

use crate::disk::clock;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkKind {
    /// Bytes of shards are fetched.
    Read,
    /// Rows are checked, and those that are padding taken out.
    Check,
    /// The content of shards is hashed.
    Hash,
    /// Rows are folded into the statistics of their site.
    Accumulate,
    /// The shrinkage is chosen, and corrections are scored, on rows held out.
    Choose,
    /// W is read, W~ is made, and E is formed from both.
    Quantize,
    /// Finding A and B.
    Subspace,
    /// The worth of A and B is measured, before and after they are rounded.
    Measure,
    /// W is rounded under R; A and B are rounded to the type in which they are written.
    Round,
    /// Snapshots, bases and generations are written, and checked.
    Write,
}

impl WorkKind {
    /// All kinds, in the order in which data passes through them.
    pub(crate) const ALL: [Self; 10] = [
        Self::Read,
        Self::Check,
        Self::Hash,
        Self::Accumulate,
        Self::Choose,
        Self::Quantize,
        Self::Subspace,
        Self::Measure,
        Self::Round,
        Self::Write,
    ];

    /// The kind's name in events.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Check => "check",
            Self::Hash => "hash",
            Self::Accumulate => "accumulate",
            Self::Choose => "choose",
            Self::Quantize => "quantize",
            Self::Subspace => "subspace",
            Self::Measure => "measure",
            Self::Round => "round",
            Self::Write => "write",
        }
    }
}

/// Nanoseconds of ended stretches of all threads, in the order of [`WorkKind::ALL`].
static SPENT: [AtomicU64; WorkKind::ALL.len()] = [const { AtomicU64::new(0) }; WorkKind::ALL.len()];

thread_local! {
    /// The stretch of work that this thread is at.
    static AT_WORK: Cell<Option<Stretch>> = const { Cell::new(None) };
}

/// A stretch of one kind of work, not interrupted by another.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    kind: WorkKind,
    /// The thread's CPU time when it began.
    begun: Duration,
}

/// Does `work`, and books it under this kind.
pub(crate) fn doing<T>(kind: WorkKind, work: impl FnOnce() -> T) -> T {
    let outer = begin(Some(kind));
    let done = work();
    begin(outer);
    done
}

/// Does `work`, and books it under the lender's kind, if the lender has one.
pub(crate) fn doing_for<T>(lender: Option<WorkKind>, work: impl FnOnce() -> T) -> T {
    match lender {
        Some(kind) => doing(kind, work),
        None => work(),
    }
}

/// The kind of work that this thread is at.
pub(crate) fn at_work() -> Option<WorkKind> {
    AT_WORK.get().map(|stretch| stretch.kind)
}

/// Books what was done so far and begins work of another kind, or none. Returns the kind before.
fn begin(next: Option<WorkKind>) -> Option<WorkKind> {
    let now = clock::thread_cpu();
    let before = AT_WORK.replace(next.map(|kind| Stretch { kind, begun: now }))?;
    let took = now.saturating_sub(before.begun).as_nanos();
    let took = u64::try_from(took).unwrap_or(u64::MAX);
    SPENT[before.kind as usize].fetch_add(took, Ordering::Relaxed);
    Some(before.kind)
}

/// CPU seconds by kind of work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SecondsByKind([f64; WorkKind::ALL.len()]);

impl SecondsByKind {
    /// The CPU seconds of this process so far, in stretches that have ended.
    pub(crate) fn spent() -> Self {
        let seconds = |nanoseconds: &AtomicU64| {
            Duration::from_nanos(nanoseconds.load(Ordering::Relaxed)).as_secs_f64()
        };
        Self(SPENT.each_ref().map(seconds))
    }

    /// The seconds of one kind.
    pub(crate) const fn of(&self, kind: WorkKind) -> f64 {
        self.0[kind as usize]
    }

    /// The seconds of all kinds.
    pub(crate) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// Made-up seconds, for tests.
    #[cfg(test)]
    pub(crate) fn made_up(of: impl Fn(WorkKind) -> f64) -> Self {
        Self(WorkKind::ALL.map(of))
    }
}

impl Serialize for SecondsByKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(WorkKind::ALL.len()))?;
        for kind in WorkKind::ALL {
            map.serialize_entry(kind.name(), &self.of(kind))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cores::Cores;

    /// Keeps this thread's core busy for this much CPU time.
    fn busy(milliseconds: u64) {
        let until = clock::thread_cpu() + Duration::from_millis(milliseconds);
        while clock::thread_cpu() < until {
            core::hint::spin_loop();
        }
    }

    /// Other tests of this binary book in parallel, but no other one books these two kinds.
    #[test]
    fn work_within_work_is_booked_once_and_lent_work_under_the_lenders_kind() {
        let before = SecondsByKind::spent();
        let inner = doing(WorkKind::Round, || {
            busy(20);
            let inner = doing(WorkKind::Write, || {
                busy(60);
                at_work()
            });
            // Two pieces, on one thread or on two.
            Cores::new(2).spread(vec![10, 10], busy);
            assert_eq!(at_work(), Some(WorkKind::Round));
            inner
        });
        busy(20); // Nobody's.
        assert_eq!((inner, at_work()), (Some(WorkKind::Write), None));
        let after = SecondsByKind::spent();
        let took = |kind| after.of(kind) - before.of(kind);
        let (round, write) = (took(WorkKind::Round), took(WorkKind::Write));
        assert!((0.040..0.055).contains(&round), "{round}");
        assert!((0.060..0.075).contains(&write), "{write}");
    }

    #[test]
    fn every_kind_has_its_place_and_a_name() {
        for (place, kind) in WorkKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place, "{kind:?}");
            assert_eq!(format!("{kind:?}").to_lowercase(), kind.name());
        }
    }
}
