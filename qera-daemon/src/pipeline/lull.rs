//! How long no shard has to come before a folder counts as drained, and is solved.

use core::time::Duration;
use std::time::Instant;

use crate::disk::clock;

/// The time without a new shard after which all layers are solved and published.
///
/// It is never less than the last such solve took: shards that come a little slower than
/// `--idle-publish` would each have all layers solved again, beside the engine that makes them. So
/// solving drained folders takes at most half of the time.
#[derive(Debug)]
pub(crate) struct Lull {
    /// `--idle-publish`.
    least: Duration,
    last_solve: Duration,
}

impl Lull {
    /// Before the first solve.
    pub(crate) const fn new(least: Duration) -> Self {
        Self {
            least,
            last_solve: Duration::ZERO,
        }
    }

    /// When the folder counts as drained, if no shard comes after the one that came at `fresh_at`.
    pub(crate) fn ends(&self, fresh_at: Instant) -> Instant {
        fresh_at + self.least.max(self.last_solve)
    }

    /// Does a solve of all layers, which sets how long the next lull is.
    pub(crate) fn solve<T>(&mut self, solve: impl FnOnce() -> T) -> T {
        let begun = clock::now();
        let solved = solve();
        self.last_solve = clock::since(begun);
        solved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lull_is_as_long_as_the_last_solve_and_never_below_the_option() {
        let (least, long) = (Duration::from_millis(20), Duration::from_millis(60));
        let (mut lull, fresh_at) = (Lull::new(least), clock::now());
        assert_eq!(lull.ends(fresh_at), fresh_at + least);
        assert_eq!(lull.solve(|| clock::pause(long)), ());
        assert!(lull.ends(fresh_at) >= fresh_at + long);
        lull.solve(|| ());
        assert_eq!(lull.ends(fresh_at), fresh_at + least, "the last one counts");
    }
}
