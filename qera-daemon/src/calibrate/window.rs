//! A bounded, evenly spread sample of whole blocks of rows, kept so that a correction can be judged on
//! rows that it was not solved from (design: shrinkage is chosen on held-out blocks).
//!
//! A block is one sequence of a [batch, seq, in] shard, else a 2-D shard of at least 256 rows. Smaller
//! shards are joined, and so are sequences of fewer than 64 rows (a decoding engine writes one token at a
//! time, and a token is no block); a lone 2-D shard is cut into quarters, and what is longer than 1,024
//! rows is cut, so that a full window always has at least four blocks. Rows of one text resemble each other, so
//! only whole blocks are held out.
//!
//! The rows in the window are in R as well; a solve that must not know them takes their X^T X out
//! again, so dropping a block costs nothing. Each block draws a fixed pseudo-random number from its place in
//! the stream, and beyond [`WINDOW_ROWS`] rows the block with the largest one is dropped: an even sample that
//! no period of the stream can hide from, and a function of the order of the rows alone.

use qera_core::pseudo_random::SplitMix64;
use serde::{Deserialize, Serialize};

use crate::kernels::{Numbers, Stored};
use crate::source::SiteRows;

/// Most rows kept.
pub const WINDOW_ROWS: usize = 4096;
/// Longest block: after a drop more than three quarters of the window are left, which is four blocks.
const BLOCK_ROWS_MAX: usize = WINDOW_ROWS / 4;
/// 2-D shards with fewer rows are joined.
pub(super) const BLOCK_ROWS_MIN: usize = 256;
/// Sequences with fewer rows are joined.
const SEQUENCE_ROWS_MIN: usize = 64;
/// Rows kept at most, with those that wait.
pub const WINDOW_ROWS_PEAK: usize = WINDOW_ROWS + BLOCK_ROWS_MIN;

/// The blocks that shards with so many rows, in so many sequences, are cut into: rows of a block, and rows that wait to
/// become part of one.
#[must_use]
pub fn block_rows(rows: usize, sequences: Option<usize>) -> (usize, usize) {
    let least = sequences.map_or(BLOCK_ROWS_MIN, |_| SEQUENCE_ROWS_MIN);
    let length = (rows / sequences.unwrap_or(1).max(1)).max(1);
    if length >= least {
        return (length.div_ceil(length.div_ceil(BLOCK_ROWS_MAX)), 0);
    }
    let block = least.next_multiple_of(length);
    (block, block - length)
}

/// Consecutive rows of one text.
#[derive(Debug, Clone)]
pub struct Block {
    /// Row-major.
    pub values: Numbers<f32>,
    /// Number of rows.
    pub rows: usize,
    /// Its place in the stream, which decides whether it stays.
    pub number: u64,
}

impl Block {
    /// A fixed pseudo-random number.
    pub(super) const fn draw(&self) -> u64 {
        draw(self.number)
    }
}

/// What a snapshot keeps of a window or of the rows kept aside, beside the rows themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlocksRecord {
    /// (rows, number) of each block.
    pub blocks: Vec<(usize, u64)>,
    /// Blocks seen so far.
    pub seen: u64,
    /// Rows that wait for more.
    pub pending: usize,
    /// Shards that gave rows.
    pub shards: usize,
    /// Whether any came as sequences.
    pub sequences: bool,
}

/// The sample.
#[derive(Debug, Clone)]
pub struct Window {
    in_features: usize,
    /// Most rows kept.
    most: usize,
    blocks: Vec<Block>,
    rows: usize,
    seen: u64,
    /// Rows of small shards or sequences that wait for more.
    pending: Vec<f32>,
    shards: usize,
    sequences: bool,
}

impl Window {
    /// An empty window.
    #[must_use]
    pub const fn new(in_features: usize) -> Self {
        Self {
            in_features,
            most: WINDOW_ROWS,
            blocks: Vec::new(),
            rows: 0,
            seen: 0,
            pending: Vec::new(),
            shards: 0,
            sequences: false,
        }
    }

    /// One that keeps no block and only cuts what it is offered.
    pub(super) const fn passing(in_features: usize) -> Self {
        let mut window = Self::new(in_features);
        window.most = 0;
        window
    }

    /// Goes on with rows that waited when they were saved.
    pub(super) fn wait_with(&mut self, rows: &[f32]) {
        self.pending = rows.to_vec();
    }

    /// Offers the rows of a shard; `each` is shown every block as it is complete, whether the window keeps it
    /// or not.
    pub fn offer(&mut self, shard: &SiteRows, mut each: impl FnMut(Stored<'_>)) {
        self.shards += usize::from(!shard.bytes.is_empty());
        self.sequences |= shard.sequences;
        let least = if shard.sequences {
            SEQUENCE_ROWS_MIN
        } else {
            BLOCK_ROWS_MIN
        };
        let mut first = 0;
        for &rows in &shard.batches {
            let own = shard.stored().slice(self.in_features, first..first + rows);
            self.join(own, least, &mut each);
            first += rows;
        }
    }

    /// Whether [`finish`](Self::finish) would change anything.
    #[must_use]
    pub const fn unfinished(&self) -> bool {
        self.shards == 1 && !self.sequences && self.blocks.len() < 4
    }

    /// Says that no more will come: what a lone 2-D shard gave is cut into quarters where it is fewer blocks.
    pub fn finish(&mut self) {
        if self.unfinished() {
            let length = self.all_rows().map(<[f32]>::len).sum();
            let mut all = Numbers::zeroed(length);
            let mut rest = &mut all[..];
            for rows in self.all_rows() {
                let (to, after) = rest.split_at_mut(rows.len());
                to.copy_from_slice(rows);
                rest = after;
            }
            (self.blocks, self.rows, self.seen) = (Vec::new(), 0, 0);
            self.pending = Vec::new();
            self.cut(Stored::Numbers(&all), 4, &mut |_| ());
        }
    }

    /// Whether rows wait for more to make a block.
    #[must_use]
    pub const fn waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What a snapshot keeps beside [`all_rows`](Self::all_rows).
    #[must_use]
    pub fn record(&self) -> BlocksRecord {
        BlocksRecord {
            blocks: self.blocks.iter().map(|b| (b.rows, b.number)).collect(),
            seen: self.seen,
            pending: self.pending.len() / self.in_features,
            shards: self.shards,
            sequences: self.sequences,
        }
    }

    /// The window that gave this record and these rows; `None` where they do not belong together.
    #[must_use]
    pub fn restore(in_features: usize, record: &BlocksRecord, values: &[f32]) -> Option<Self> {
        let (blocks, pending) = restore_blocks(in_features, record, values)?;
        Some(Self {
            in_features,
            most: WINDOW_ROWS,
            rows: blocks.iter().map(|b| b.rows).sum(),
            blocks,
            seen: record.seen,
            pending: pending.to_vec(),
            shards: record.shards,
            sequences: record.sequences,
        })
    }

    /// Every row held, those that wait for more included, in pieces.
    pub fn all_rows(&self) -> impl Iterator<Item = &[f32]> {
        self.blocks
            .iter()
            .map(|block| &block.values[..])
            .chain([&self.pending[..]])
    }

    /// Takes consecutive rows as a block, or keeps them waiting until there are `least`.
    fn join(&mut self, own: Stored<'_>, least: usize, each: &mut impl FnMut(Stored<'_>)) {
        let rows = own.rows(self.in_features);
        if self.pending.is_empty() && rows >= least {
            self.cut(own, rows.div_ceil(BLOCK_ROWS_MAX), each);
            return;
        }
        let mut joined = core::mem::take(&mut self.pending);
        let before = joined.len();
        joined.resize(before + rows * self.in_features, 0.0);
        own.widen(0..rows * self.in_features, &mut joined[before..]);
        let rows = joined.len() / self.in_features;
        if rows >= least {
            self.cut(
                Stored::Numbers(&joined),
                rows.div_ceil(BLOCK_ROWS_MAX),
                each,
            );
        } else {
            self.pending = joined;
        }
    }

    /// The blocks, in the order of the stream.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Rows in the blocks.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Cuts rows into `pieces` blocks of nearly equal length.
    fn cut(&mut self, all: Stored<'_>, pieces: usize, each: &mut impl FnMut(Stored<'_>)) {
        let rows = all.rows(self.in_features);
        let pieces = pieces.min(rows);
        for piece in 0..pieces {
            let (from, to) = (piece * rows / pieces, (piece + 1) * rows / pieces);
            let block = all.slice(self.in_features, from..to);
            self.keep(block);
            each(block);
        }
    }

    fn keep(&mut self, block: Stored<'_>) {
        let rows = block.rows(self.in_features);
        let number = self.seen;
        self.seen += 1;
        // In a full window those with the largest draws go, before the new one is copied: most often it goes itself.
        while self.rows + rows > self.most {
            let last = (0..self.blocks.len()).max_by_key(|&i| self.blocks[i].draw());
            match last.filter(|&last| self.blocks[last].draw() > draw(number)) {
                Some(last) => self.rows -= self.blocks.remove(last).rows,
                None => return,
            }
        }
        let mut values = Numbers::zeroed(rows * self.in_features);
        block.widen(0..values.len(), &mut values);
        self.blocks.push(Block {
            values,
            rows,
            number,
        });
        self.rows += rows;
    }
}

/// Cuts saved rows into the blocks that the record names, and what is left over.
pub(super) fn restore_blocks<'a>(
    in_features: usize,
    record: &BlocksRecord,
    values: &'a [f32],
) -> Option<(Vec<Block>, &'a [f32])> {
    let mut rest = values;
    let mut blocks = Vec::new();
    for &(rows, number) in &record.blocks {
        let (own, after) = rest.split_at_checked(rows.checked_mul(in_features)?)?;
        let mut values = Numbers::zeroed(own.len());
        values.copy_from_slice(own);
        blocks.push(Block {
            values,
            rows,
            number,
        });
        rest = after;
    }
    (rest.len() == record.pending.checked_mul(in_features)?).then_some((blocks, rest))
}

/// A fixed pseudo-random number for the block's number.
pub(super) const fn draw(index: u64) -> u64 {
    SplitMix64::nth(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(rows: usize, sequences: Option<usize>) -> SiteRows {
        let batches = sequences.map_or_else(|| vec![rows], |n| vec![rows / n; n]);
        SiteRows {
            site: 0,
            in_features: 2,
            bytes: 1.0_f32.to_le_bytes().repeat(rows * 2).into(),
            dtype: qera_core::dtype::FloatDtype::F32,
            batches,
            sequences: sequences.is_some(),
        }
    }

    fn lengths(window: &Window) -> Vec<usize> {
        window.blocks().iter().map(|b| b.rows).collect()
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

    #[test]
    fn a_window_continues_from_its_record() {
        let mut window = Window::new(2);
        for rows in [300, 100, 5000, 90] {
            window.offer(&shard(rows, None), |_| ());
        }
        let values = window.all_rows().collect::<Vec<_>>().concat();
        let mut copy = Window::restore(2, &window.record(), &values).unwrap();
        assert_eq!(copy.record(), window.record());
        for w in [&mut window, &mut copy] {
            w.offer(&shard(800, None), |_| ());
        }
        assert_eq!(copy.record(), window.record());
        assert_eq!(lengths(&copy), lengths(&window));
        assert!(Window::restore(2, &window.record(), &values[2..]).is_none());
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
                assert!(window.rows() <= WINDOW_ROWS);
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
                &SiteRows {
                    site: 0,
                    in_features: 1,
                    bytes: value.to_le_bytes().repeat(512).into(),
                    dtype: qera_core::dtype::FloatDtype::F32,
                    batches: vec![512],
                    sequences: false,
                },
                |_| (),
            );
        }
        let large = window.blocks().iter().filter(|b| b.values[0] > 5.0).count();
        assert!(
            (2..=6).contains(&large) && window.blocks().len() == 8,
            "{large}"
        );
    }
}
