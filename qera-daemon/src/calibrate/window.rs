//! A bounded, evenly spread sample of whole blocks of rows, kept so that a correction can be judged
//! on rows that it was not solved from (design: shrinkage is chosen on held-out blocks).
//!
//! A block is one sequence of a [batch, seq, in] shard, else a 2-D shard of at least 256 rows.
//! Smaller shards are joined, and so are sequences of fewer than 64 rows (a decoding engine writes
//! one token at a time, and a token is no block); a lone 2-D shard is cut into quarters, and what
//! is longer than 1,024 rows is cut, so that a full window always has at least four blocks. Rows of
//! one text resemble each other, so only whole blocks are held out.
//!
//! The rows in the window are in R as well; a solve that must not know them takes their X^T X out
//! again, so dropping a block costs nothing. Each block draws a fixed pseudo-random number from its
//! place in the stream, and beyond [`WINDOW_ROWS`] rows the block with the largest one is dropped:
//! an even sample that no period of the stream can hide from, and a function of the order of the
//! rows alone.

use crate::calibrate::blocks::{Block, BlocksRecord, SavedReader, SavedRows, draw, records};
use crate::calibrate::pending::Pending;
use crate::host::kernels::stored::StoredRows;
use crate::source::rows::Batch;
use crate::weights::frozen::record::CUT_FOR_ONE_SOLVE;

/// Most rows kept.
pub(crate) const WINDOW_ROWS: usize = 4096;
/// Longest block: after a drop more than three quarters of the window are left, which is four
/// blocks.
const BLOCK_ROWS_MAX: usize = WINDOW_ROWS / 4;
/// 2-D shards with fewer rows are joined.
pub(crate) const BLOCK_ROWS_MIN: usize = 256;
/// Sequences with fewer rows are joined.
const SEQUENCE_ROWS_MIN: usize = 64;
/// Rows kept at most, with those that wait.
pub(crate) const WINDOW_ROWS_PEAK: usize = WINDOW_ROWS + BLOCK_ROWS_MIN;

/// The blocks that batches of one size are cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockSize {
    /// Rows of a block.
    pub(crate) rows: usize,
    /// Rows that wait to become part of one.
    pub(crate) waiting: usize,
}

/// The blocks that batches with so many rows, in so many sequences, are cut into.
#[must_use]
pub(crate) fn block_size(rows: usize, sequences: Option<usize>) -> BlockSize {
    let least = sequences.map_or(BLOCK_ROWS_MIN, |_| SEQUENCE_ROWS_MIN);
    let length = (rows / sequences.unwrap_or(1).max(1)).max(1);
    if length >= least {
        return BlockSize {
            rows: length.div_ceil(length.div_ceil(BLOCK_ROWS_MAX)),
            waiting: 0,
        };
    }
    let block = least.next_multiple_of(length);
    BlockSize {
        rows: block,
        waiting: block - length,
    }
}

/// The sample.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    in_features: usize,
    /// Most rows kept.
    most: usize,
    blocks: Vec<Block>,
    rows: usize,
    seen: u64,
    /// Rows of small shards or sequences that wait for more.
    pending: Pending,
    /// Batches that gave rows.
    batches: usize,
    sequences: bool,
}

impl Window {
    /// An empty window.
    #[must_use]
    pub(crate) const fn new(in_features: usize) -> Self {
        Self {
            in_features,
            most: WINDOW_ROWS,
            blocks: Vec::new(),
            rows: 0,
            seen: 0,
            pending: Pending::new(in_features),
            batches: 0,
            sequences: false,
        }
    }

    /// One that keeps no block and only cuts what it is offered.
    pub(crate) const fn passing(in_features: usize) -> Self {
        let mut window = Self::new(in_features);
        window.most = 0;
        window
    }

    /// Goes on with rows that waited when they were saved.
    pub(crate) fn wait_with(&mut self, pending: Pending) {
        self.pending = pending;
    }

    /// Offers the rows of a batch; `each` is shown every block as it is complete, whether the
    /// window keeps it or not.
    pub(crate) fn offer(&mut self, batch: &Batch, mut each: impl FnMut(StoredRows<'_>)) {
        self.batches += usize::from(!batch.bytes.is_empty());
        self.sequences |= batch.sequences;
        let least = if batch.sequences {
            SEQUENCE_ROWS_MIN
        } else {
            BLOCK_ROWS_MIN
        };
        let mut first = 0;
        for &rows in &batch.batches {
            let own = batch.stored().slice(first..first + rows);
            self.join(own, least, &mut each);
            first += rows;
        }
    }

    /// Whether [`finish`](Self::finish) would change anything.
    #[must_use]
    pub(crate) const fn unfinished(&self) -> bool {
        self.batches == 1 && !self.sequences && self.blocks.len() < 4
    }

    /// Says that no more will come: what a lone 2-D shard gave is cut into quarters where it is
    /// fewer blocks. Their numbers are not those of the stream: should more come all the same, it
    /// is cut otherwise.
    pub(crate) fn finish(&mut self) {
        if self.unfinished() {
            let mut all = Pending::new(self.in_features);
            self.all_rows().for_each(|rows| all.push(rows));
            let next = self.next_whole_block();
            (self.blocks, self.rows, self.seen) = (Vec::new(), 0, CUT_FOR_ONE_SOLVE);
            self.pending = Pending::new(self.in_features);
            self.cut(all.stored(), 4, &mut |_| ());
            self.seen = next;
        }
    }

    /// The number of the first block of which no row has come.
    #[must_use]
    pub(crate) fn next_whole_block(&self) -> u64 {
        self.seen + u64::from(self.waiting())
    }

    /// Whether rows wait for more to make a block.
    #[must_use]
    pub(crate) const fn waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What a snapshot keeps beside [`all_rows`](Self::all_rows).
    #[must_use]
    pub(crate) fn record(&self) -> BlocksRecord {
        BlocksRecord {
            blocks: records(&self.blocks),
            seen: self.seen,
            pending: self.pending.record(),
            batches: self.batches,
            sequences: self.sequences,
        }
    }

    /// The window that gave this record and these rows; `None` where they do not belong together.
    #[must_use]
    pub(crate) fn restore(
        in_features: usize,
        record: &BlocksRecord,
        rows: &SavedRows,
    ) -> Option<Self> {
        let mut saved = SavedReader::new(in_features, rows);
        let blocks = saved.blocks(&record.blocks)?;
        let pending = saved.pending(record.pending.as_ref())?;
        saved.is_empty().then(|| Self {
            in_features,
            most: WINDOW_ROWS,
            rows: blocks.iter().map(Block::rows).sum(),
            blocks,
            seen: record.seen,
            pending,
            batches: record.batches,
            sequences: record.sequences,
        })
    }

    /// Every row held, those that wait for more included, in pieces.
    pub(crate) fn all_rows(&self) -> impl Iterator<Item = StoredRows<'_>> {
        let waiting = core::iter::once(self.pending.stored());
        self.blocks.iter().map(Block::stored).chain(waiting)
    }

    /// Takes consecutive rows as a block, or keeps them waiting until there are `least`.
    fn join(&mut self, own: StoredRows<'_>, least: usize, each: &mut impl FnMut(StoredRows<'_>)) {
        let rows = own.rows();
        if self.pending.is_empty() && rows >= least {
            self.cut(own, rows.div_ceil(BLOCK_ROWS_MAX), each);
            return;
        }
        let nothing = Pending::new(self.in_features);
        let mut joined = core::mem::replace(&mut self.pending, nothing);
        joined.push(own);
        let rows = joined.stored().rows();
        if rows >= least {
            self.cut(joined.stored(), rows.div_ceil(BLOCK_ROWS_MAX), each);
        } else {
            self.pending = joined;
        }
    }

    /// The blocks, in the order of the stream.
    #[must_use]
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Cuts rows into `pieces` blocks of nearly equal length.
    fn cut(&mut self, all: StoredRows<'_>, pieces: usize, each: &mut impl FnMut(StoredRows<'_>)) {
        let rows = all.rows();
        let pieces = pieces.min(rows);
        for piece in 0..pieces {
            let (from, to) = (piece * rows / pieces, (piece + 1) * rows / pieces);
            let block = all.slice(from..to);
            self.keep(block);
            each(block);
        }
    }

    fn keep(&mut self, block: StoredRows<'_>) {
        let rows = block.rows();
        let number = self.seen;
        self.seen += 1;
        // In a full window those with the largest draws go, before the new one is copied: most
        // often it goes itself.
        while self.rows + rows > self.most {
            let last = (0..self.blocks.len()).max_by_key(|&i| self.blocks[i].draw());
            match last.filter(|&last| self.blocks[last].draw() > draw(number)) {
                Some(last) => self.rows -= self.blocks.remove(last).rows(),
                None => return,
            }
        }
        self.blocks.push(Block::of(block, number, rows, |row| row));
        self.rows += rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(rows: usize, sequences: Option<usize>) -> Batch {
        let batches = sequences.map_or_else(|| vec![rows], |n| vec![rows / n; n]);
        Batch {
            site: 0,
            in_features: 2,
            bytes: 1.0_f32.to_le_bytes().repeat(rows * 2).into(),
            dtype: qera_core::dtype::FloatDtype::F32,
            weights: None,
            batches,
            sequences: sequences.is_some(),
        }
    }

    fn lengths(window: &Window) -> Vec<usize> {
        window.blocks().iter().map(Block::rows).collect()
    }

    #[test]
    fn blocks_follow_the_rule() {
        let mut sequences = Window::new(2);
        sequences.offer(&shard(512, Some(4)), |_| ());
        assert_eq!(lengths(&sequences), [128; 4]);

        let mut small = Window::new(2);
        for _ in 0..5 {
            small.offer(&shard(100, None), |_| ());
        }
        assert_eq!(lengths(&small), [300], "three joined, two wait");

        let mut lone = Window::new(2);
        lone.offer(&shard(100, None), |_| ());
        lone.finish();
        assert_eq!(lengths(&lone), [25; 4]);

        let mut long = Window::new(2);
        long.offer(&shard(2100, None), |_| ());
        assert_eq!(lengths(&long), [700; 3]);

        let mut decoding = Window::new(2);
        for _ in 0..40 {
            decoding.offer(&shard(4, Some(4)), |_| ());
        }
        assert_eq!(lengths(&decoding), [64; 2], "32 rows wait");
    }

    /// A W~ that was rounded on a lone shard has seen all of it, however it is cut later.
    #[test]
    fn blocks_that_no_row_came_of_are_known() {
        let mut window = Window::new(2);
        for (rows, next) in [(300, 1), (100, 2), (90, 2), (300, 2)] {
            window.offer(&shard(rows, None), |_| ());
            assert_eq!(window.next_whole_block(), next);
        }
        for (rows, next) in [(300, 1), (100, 1)] {
            let mut lone = Window::new(2);
            lone.offer(&shard(rows, None), |_| ());
            lone.finish();
            assert_eq!((lone.blocks.len(), lone.next_whole_block()), (4, next));
            let cut = lone.blocks.iter().map(|block| block.number);
            assert!(cut.eq(CUT_FOR_ONE_SOLVE..CUT_FOR_ONE_SOLVE + 4));
        }
    }

    #[test]
    fn a_window_continues_from_its_record() {
        let mut window = Window::new(2);
        for rows in [300, 100, 5000, 90] {
            window.offer(&shard(rows, None), |_| ());
        }
        let saved = SavedRows::of(window.all_rows());
        let mut copy = Window::restore(2, &window.record(), &saved).unwrap();
        assert_eq!(copy.record(), window.record());
        for w in [&mut window, &mut copy] {
            w.offer(&shard(800, None), |_| ());
        }
        assert_eq!(copy.record(), window.record());
        assert_eq!(lengths(&copy), lengths(&window));
        let mut short = SavedRows::of(window.all_rows());
        short.bytes[0].truncate(8);
        assert!(Window::restore(2, &window.record(), &short).is_none());
    }

    #[test]
    fn the_window_stays_bounded_and_spread() {
        for (rows, sequences) in [
            (512, None),
            (700, None),
            (1024, None),
            (1024, Some(1)),
            (1024, Some(8)),
        ] {
            let mut window = Window::new(2);
            let mut seen = 0;
            for _ in 0..64 {
                window.offer(&shard(rows, sequences), |_| ());
                seen += rows;
                assert!(window.rows <= WINDOW_ROWS);
                assert!(
                    window.blocks().len() >= 4 || seen < WINDOW_ROWS,
                    "{rows} rows, {seen} seen"
                );
            }
        }
    }

    /// Every second shard is ten times larger: the sample has of both.
    #[test]
    fn a_period_of_the_stream_does_not_hide() {
        let mut window = Window::new(1);
        for number in 0..64 {
            let value: f32 = if number % 2 == 0 { 10.0 } else { 1.0 };
            window.offer(
                &Batch {
                    site: 0,
                    in_features: 1,
                    bytes: value.to_le_bytes().repeat(512).into(),
                    dtype: qera_core::dtype::FloatDtype::F32,
                    weights: None,
                    batches: vec![512],
                    sequences: false,
                },
                |_| (),
            );
        }
        let large = window
            .blocks()
            .iter()
            .filter(|b| b.stored().widened()[0] > 5.0)
            .count();
        assert!(
            (2..=6).contains(&large) && window.blocks().len() == 8,
            "{large}"
        );
    }
}
