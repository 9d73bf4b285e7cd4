//! When a site is solved again: at counts of its rows, never by the clock or a queue's length, so
//! that what is solved is a function of the order of the shards alone.
//!
//! The first point is at max(256, m / 4) rows, each further one half as many rows later again. A
//! shard is folded whole, so a point is met at the end of the shard that reaches it.
//!
//! Rows are counted as they come, and half as many as R is of make the next point: for a site that
//! folds all of them both are the same. One that folds none goes on being looked at in constant
//! steps.

const FIRST_ROWS: u64 = 256;

/// Rows of the first solve point.
#[must_use]
pub(crate) fn first_point(in_features: usize) -> u64 {
    FIRST_ROWS.max(in_features as u64 / 4)
}

/// Most rows between two solve points while shards with so many rows come one after the other.
#[must_use]
pub(crate) fn longest_wait(in_features: usize, shards: impl Iterator<Item = u64>) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait() {
        // Points at 300, 500 and 800 rows; then 200 are left.
        assert_eq!(longest_wait(64, [100; 10].into_iter()), 300);
    }
}
