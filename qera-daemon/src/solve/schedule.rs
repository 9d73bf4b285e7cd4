//! When a site is solved again: at counts of its rows, never by the clock or a queue's length, so that what is solved
//! is a function of the order of the shards alone.
//!
//! The first point is at max(256, m / 4) rows, each further one half as many rows later again. A shard is folded whole, so
//! a point is met at the end of the shard that reaches it.
//!
//! Rows are counted as they come, and half as many as R is of make the next point: for a site that folds all of them
//! both are the same. One that folds none goes on being looked at in constant steps.

use serde::{Deserialize, Serialize};

use super::evidence::LayerProgress;

const FIRST_ROWS: u64 = 256;

/// Rows of the first solve point.
#[must_use]
pub fn first_point(in_features: usize) -> u64 {
    FIRST_ROWS.max(in_features as u64 / 4)
}

/// Most rows between two solve points while shards with so many rows come one after the other.
#[must_use]
pub fn longest_wait(in_features: usize, shards: impl Iterator<Item = u64>) -> u64 {
    let (mut next, mut seen, mut waiting, mut most) = (first_point(in_features), 0_u64, 0, 0);
    for rows in shards {
        seen += rows;
        waiting += rows;
        most = most.max(waiting);
        if seen >= next {
            (next, waiting) = (seen + seen.div_ceil(2), 0);
        }
    }
    most
}

/// What a site does with its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Folding {
    /// All are folded.
    #[default]
    Open,
    /// Its layers have converged: what is folded is up to `--after-convergence`.
    Closed,
    /// All are folded again: new rows showed a drift, and it has not converged since.
    Reopened,
}

/// What a site carries from one solve point to the next.
#[derive(Debug, Clone)]
pub struct SiteProgress {
    /// Rows at which the site is solved next.
    pub next_point: u64,
    /// What it does with its rows.
    pub folding: Folding,
    /// Rows of R at the latest solve point that solved.
    pub solved: u64,
    /// Whether the latest solve point that had enough rows was spared, because no layer could gain by it.
    pub spared: bool,
    /// Its layers, in the site's order.
    pub layers: Vec<LayerProgress>,
}

impl SiteProgress {
    /// Before the first solve point.
    #[must_use]
    pub fn new(in_features: usize, layers: usize) -> Self {
        Self {
            next_point: first_point(in_features),
            folding: Folding::Open,
            solved: 0,
            spared: false,
            layers: vec![LayerProgress::default(); layers],
        }
    }

    /// A solve point at `seen` rows, of which R is of `folded`: sets the next one. Says whether there is enough in R to
    /// solve again: always while the site is open; half as many rows more than last time when it is closed.
    pub const fn advance(&mut self, seen: u64, folded: u64) -> bool {
        self.next_point = seen + folded.div_ceil(2);
        let closed = matches!(self.folding, Folding::Closed);
        let solves = !closed || folded >= self.solved + self.solved.div_ceil(2);
        if solves {
            self.solved = folded;
        }
        solves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_counts_of_rows() {
        let mut progress = SiteProgress::new(4096, 3);
        assert_eq!((progress.next_point, progress.layers.len()), (1024, 3));
        assert!(progress.advance(1024, 1024));
        assert_eq!(progress.next_point, 1536);
        assert!(progress.advance(1537, 1537));
        assert_eq!(progress.next_point, 2306);
        assert_eq!(SiteProgress::new(64, 1).next_point, 256);
        // Points at 300, 500 and 800 rows; then 200 are left.
        assert_eq!(longest_wait(64, [100; 10].into_iter()), 300);
    }

    #[test]
    fn a_closed_site_is_looked_at_in_steps_and_solved_when_r_has_grown() {
        let mut progress = SiteProgress::new(64, 1);
        assert!(progress.advance(1000, 1000));
        progress.folding = Folding::Closed;
        assert!(!progress.advance(1500, 1000));
        assert_eq!(progress.next_point, 2000);
        assert!(!progress.advance(2000, 1499));
        assert!(progress.advance(2749, 1500));
        assert_eq!((progress.solved, progress.next_point), (1500, 3499));
    }
}
