//! Which generations the clients of a server may still be answered from.

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

/// A generation may be read for this time after a newer one is served, because a request that began
/// before may still wait for it.
pub(crate) const GRACE: Duration = Duration::from_secs(120);

/// What a server was seen to serve in this run, and since when, oldest first.
///
/// Each generation has a grace time of its own. If one time counted for all of them, a server that
/// takes a new generation more often than once in that time would hold all generations for ever.
#[derive(Debug, Default)]
pub(crate) struct StillRead {
    served: Vec<ServedGeneration>,
}

#[derive(Debug)]
struct ServedGeneration {
    number: u64,
    since: Instant,
}

impl StillRead {
    /// Notes that a server serves a generation from this moment on.
    pub(crate) fn begin(&mut self, number: u64, since: Instant) {
        if self.served.last().is_some_and(|last| last.number == number) {
            return;
        }
        if let Some(left) = self.last_left(since, GRACE) {
            self.served.drain(..left);
        }
        self.served.push(ServedGeneration { number, since });
    }

    /// The generations that a request may still be answered from, or `None` where nothing has been
    /// served for `grace` in this run, so that any older one may be read.
    #[must_use]
    pub(crate) fn at(&self, now: Instant, grace: Duration) -> Option<BTreeSet<u64>> {
        let from = self.last_left(now, grace)?;
        let read = self.served[from..].iter().map(|served| served.number);
        Some(read.collect())
    }

    /// The index of the last one that was already served a grace time ago: requests from before it
    /// have ended.
    fn last_left(&self, now: Instant, grace: Duration) -> Option<usize> {
        let is_left = |of: &ServedGeneration| now.saturating_duration_since(of.since) >= grace;
        self.served.iter().rposition(is_left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_generation_is_left_a_grace_time_after_the_next_one_came() {
        let mut read = StillRead::default();
        let begin = Instant::now();
        let at = |read: &StillRead, seconds: u32| read.at(begin + seconds * SECOND, GRACE);
        assert_eq!(at(&read, 1000), None);
        // A swap each minute, and at last one back.
        for (minute, number) in [1, 2, 3, 4, 3].into_iter().enumerate() {
            read.begin(number, begin + 60 * SECOND * u32::try_from(minute).unwrap());
        }
        read.begin(3, begin + 250 * SECOND);
        assert_eq!(at(&read, 240), Some([3, 4].into()));
        assert_eq!(at(&read, 299), Some([3, 4].into()));
        assert_eq!(at(&read, 360), Some([3].into()));
        assert!(read.served.len() <= 4, "{read:?}");
    }

    #[test]
    fn before_the_first_grace_time_has_passed_any_may_be_read() {
        let mut read = StillRead::default();
        let begin = Instant::now();
        read.begin(7, begin);
        assert_eq!(read.at(begin + 119 * SECOND, GRACE), None);
        assert_eq!(read.at(begin + 120 * SECOND, GRACE), Some([7].into()));
    }
}
