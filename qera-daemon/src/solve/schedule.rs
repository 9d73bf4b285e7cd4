//! When a site is solved again: at counts of its rows, never by the clock or a queue's length, so that what is solved
//! is a function of the order of the shards alone.
//!
//! The first point is at max(256, m / 4) rows, each further one half as many rows later again. A shard is folded whole, so
//! a point is met at the end of the shard that reaches it.

use super::evidence::LayerProgress;

const FIRST_ROWS: u64 = 256;

/// Rows of the first solve point.
#[must_use]
pub fn first_point(in_features: usize) -> u64 {
    FIRST_ROWS.max(in_features as u64 / 4)
}

/// What a site carries from one solve point to the next.
#[derive(Debug, Clone)]
pub struct SiteProgress {
    /// Rows at which the site is solved next.
    pub next_point: u64,
    /// Its layers, in the site's order.
    pub layers: Vec<LayerProgress>,
}

impl SiteProgress {
    /// Before the first solve point.
    #[must_use]
    pub fn new(in_features: usize, layers: usize) -> Self {
        Self {
            next_point: first_point(in_features),
            layers: vec![LayerProgress::default(); layers],
        }
    }

    /// Sets the next point, given the rows of this one.
    pub const fn advance(&mut self, rows: u64) {
        self.next_point = rows + rows.div_ceil(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_counts_of_rows() {
        let mut progress = SiteProgress::new(4096, 3);
        assert_eq!((progress.next_point, progress.layers.len()), (1024, 3));
        progress.advance(1024);
        assert_eq!(progress.next_point, 1536);
        progress.advance(1537);
        assert_eq!(progress.next_point, 2306);
        assert_eq!(SiteProgress::new(64, 1).next_point, 256);
    }
}
