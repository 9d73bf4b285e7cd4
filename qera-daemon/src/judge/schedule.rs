//! When a site is solved again: at counts of its rows, never by the clock or a queue's length, so
//! that what is solved is a function of the order of the shards alone.
//!
//! The first point is at max(256, m / 4) rows. Each further point is at half as many rows again. A
//! shard is folded whole, so that a point is met at the end of the shard that reaches it.
//!
//! The rows counted are those that came, and the distance to the next point is half the number of
//! rows in R. For a site that folds all of its rows both numbers are the same. A site that folds
//! none is looked at in constant steps.

const FIRST_ROWS: u64 = 256;

/// The number of rows of the first solve point.
#[must_use]
pub(crate) fn first_point(in_features: usize) -> u64 {
    FIRST_ROWS.max(in_features as u64 / 4)
}

/// The most rows that come between two solve points when shards of these sizes follow each other.
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
