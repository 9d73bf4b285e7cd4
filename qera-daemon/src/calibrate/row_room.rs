//! How many rows a site may hold out (`window`) and keep aside (`aside`), so that the rows of all
//! sites together take no more than `--window-memory`, however many shards come.
//!
//! The memory is divided by the sites' widths alone: every site may keep as many rows of a type as
//! every other. So what a site keeps is a function of its rows and of the set of sites, and not of
//! who came first. Rows stay in the type in which they come, so that of a type with two bytes a
//! number twice as many are kept. Of a site's room 64 parts of 85 are for blocks held out, 13 for
//! rows kept aside, and twice 4 for rows that wait to make a block: once for an open site and once
//! for a closed one.

use crate::host::kernels::stored::StoredRows;
use crate::weights::sites::Sites;

/// The most rows that a site holds out, whatever room there is.
const WINDOW_ROWS: usize = 4096;
/// The most rows that are kept aside.
const ASIDE_ROWS: usize = 4096;
/// The window holds at least this many of the longest blocks. After one is dropped more than three
/// quarters of the window are left, which is four blocks.
const BLOCKS_MIN: usize = 4;
/// 2-D shards with fewer rows than this are joined, ...
const BLOCK_ROWS_MIN: usize = 256;
/// ... and sequences with fewer rows than this.
const SEQUENCE_ROWS_MIN: usize = 64;
/// A site's room is divided into this many parts, ...
const PARTS: u64 = 85;
/// ... of which these are for blocks held out, ...
const WINDOW_PARTS: u64 = 64;
/// ... these for rows kept aside, ...
const ASIDE_PARTS: u64 = 13;
/// ... and, twice, these for rows that wait.
const WAITING_PARTS: u64 = 4;
/// Bytes for each channel that every site gets at least: 64 rows of f32, of which 12 make a block.
const LEAST_BYTES: u64 = 256;

/// The room of every site, in bytes for each channel of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowRoom {
    channel_bytes: u64,
}

/// The size of the blocks that batches of one size are cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockSize {
    /// The number of rows in a block.
    pub(crate) rows: usize,
    /// The number of rows that wait to become part of one.
    pub(crate) waiting: usize,
}

/// The size of rows that are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeptSize {
    /// The number of rows.
    pub(crate) rows: usize,
    /// The number of their bytes.
    pub(crate) bytes: usize,
}

impl KeptSize {
    /// The size of these rows.
    #[must_use]
    pub(crate) fn of(rows: StoredRows<'_>) -> Self {
        let row_bytes = rows.in_features * rows.dtype().size_bytes();
        Self {
            rows: rows.rows(),
            bytes: rows.rows() * row_bytes,
        }
    }

    /// The size together with others.
    #[must_use]
    pub(crate) const fn with(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            bytes: self.bytes + other.bytes,
        }
    }

    /// The size without some of the rows.
    #[must_use]
    pub(crate) const fn without(self, other: Self) -> Self {
        Self {
            rows: self.rows - other.rows,
            bytes: self.bytes - other.bytes,
        }
    }
}

impl RowRoom {
    /// The largest room that is ever used.
    pub(crate) const WHOLE: Self = Self {
        channel_bytes: u64::MAX,
    };

    /// The room that sites of these widths have in this much memory.
    #[must_use]
    pub(crate) fn of(memory: u64, widths: impl Iterator<Item = usize>) -> Self {
        let channels = widths.fold(0_u64, |sum, width| sum.saturating_add(width as u64));
        Self {
            channel_bytes: (memory / channels.max(1)).max(LEAST_BYTES),
        }
    }

    /// The room of these sites.
    #[must_use]
    pub(crate) fn of_sites(memory: u64, sites: &Sites) -> Self {
        Self::of(memory, sites.sites.iter().map(|site| site.in_features))
    }

    /// How many rows, at this many bytes a number, fit into these parts.
    fn rows(self, parts: u64, number_bytes: usize) -> usize {
        let bytes = u128::from(self.channel_bytes) * u128::from(parts) / u128::from(PARTS);
        usize::try_from(bytes).unwrap_or(usize::MAX) / number_bytes.max(1)
    }

    /// The most rows of a type that are held out.
    #[must_use]
    pub(crate) fn window_rows(self, number_bytes: usize) -> usize {
        self.rows(WINDOW_PARTS, number_bytes).min(WINDOW_ROWS)
    }

    /// The most rows of a type that are kept aside.
    #[must_use]
    pub(crate) fn aside_rows(self, number_bytes: usize) -> usize {
        self.rows(ASIDE_PARTS, number_bytes).min(ASIDE_ROWS)
    }

    /// Batches with fewer rows than this are joined.
    #[must_use]
    pub(crate) fn joined_rows(self, number_bytes: usize, are_sequences: bool) -> usize {
        let least = if are_sequences {
            SEQUENCE_ROWS_MIN
        } else {
            BLOCK_ROWS_MIN
        };
        self.rows(WAITING_PARTS, number_bytes).clamp(1, least)
    }

    /// The longest block of a type.
    #[must_use]
    pub(crate) fn block_rows(self, number_bytes: usize) -> usize {
        (self.window_rows(number_bytes) / BLOCKS_MIN).max(1)
    }

    /// How batches with this many rows, in this many sequences, are cut into blocks.
    #[must_use]
    pub(crate) fn block_size(
        self,
        rows: usize,
        sequences: Option<usize>,
        number_bytes: usize,
    ) -> BlockSize {
        let least = self.joined_rows(number_bytes, sequences.is_some());
        let length = (rows / sequences.unwrap_or(1).max(1)).max(1);
        if length >= least {
            return BlockSize {
                rows: length.div_ceil(length.div_ceil(self.block_rows(number_bytes))),
                waiting: 0,
            };
        }
        let block = least.next_multiple_of(length);
        BlockSize {
            rows: block,
            waiting: block - length,
        }
    }

    /// Whether a window of this width has room for this much.
    #[must_use]
    pub(crate) fn window_holds(self, in_features: usize, kept: KeptSize) -> bool {
        let bytes = self.rows(WINDOW_PARTS, 1).saturating_mul(in_features);
        kept.rows <= WINDOW_ROWS && kept.bytes <= bytes
    }

    /// Whether the rows aside have room for this much.
    #[must_use]
    pub(crate) fn aside_holds(self, in_features: usize, kept: KeptSize) -> bool {
        let bytes = self.rows(ASIDE_PARTS, 1).saturating_mul(in_features);
        kept.rows <= ASIDE_ROWS && kept.bytes <= bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: [usize; 4] = [576, 576, 576, 1536];

    /// Whatever the types, what all sites keep fits the memory, and each keeps as many rows as
    /// every other.
    #[test]
    fn all_sites_together_fit() {
        for memory in [1 << 20, 3 << 22, 1 << 24, 1 << 26] {
            let room = RowRoom::of(memory, WIDTHS.into_iter());
            for bytes in [2, 4] {
                let waiting = room.joined_rows(bytes, false) - 1;
                let rows = room.window_rows(bytes) + room.aside_rows(bytes) + 2 * waiting;
                let taken = rows * bytes * WIDTHS.iter().sum::<usize>();
                assert!(taken as u64 <= memory, "{taken} {memory}");
                assert!(
                    taken as u64 > memory / 8 * 7 || room.window_rows(bytes) == WINDOW_ROWS,
                    "{taken} {memory}: most of it is used"
                );
                assert!(room.block_rows(bytes) * 4 <= room.window_rows(bytes));
            }
        }
    }

    /// Where there is room enough, nothing is smaller than without a bound.
    #[test]
    fn much_room_is_as_good_as_all_of_it() {
        let room = RowRoom::of(1 << 30, core::iter::repeat_n(576, 120).chain([0]));
        for room in [room, RowRoom::WHOLE] {
            assert_eq!(room.window_rows(2), 4096);
            assert_eq!(room.block_rows(2), 1024);
            assert_eq!(room.joined_rows(2, false), 256);
            assert_eq!(room.joined_rows(2, true), 64);
        }
        assert_eq!(RowRoom::WHOLE.aside_rows(4), 4096);
        let size = |rows, sequences| RowRoom::WHOLE.block_size(rows, sequences, 2).rows;
        assert_eq!(
            [size(512, Some(4)), size(100, None), size(2100, None)],
            [128, 300, 700]
        );
    }

    /// Every site has blocks to be judged by, however many sites there are.
    #[test]
    fn there_is_a_least() {
        let room = RowRoom::of(1, core::iter::repeat_n(1 << 20, 1 << 12));
        assert_eq!((room.window_rows(4), room.block_rows(4)), (48, 12));
        assert!(room.aside_rows(4) >= 8 && room.joined_rows(4, false) >= 1);
    }
}
