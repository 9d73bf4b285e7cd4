//! The window: a bounded, evenly spread sample of whole blocks of rows. They are kept to judge a
//! correction on rows that it was not solved from (docs/design/evidence.md).
//!
//! A block is one sequence of a [batch, seq, in] shard, or a 2-D shard of at least 256 rows.
//! Smaller shards are joined, and so are sequences of fewer than 64 rows (a decoding engine writes
//! one token at a time, and a token is no block). A lone 2-D shard is cut into quarters, and
//! whatever is longer than 1,024 rows is cut, so that a full window always has at least four
//! blocks. All of these sizes are smaller where the room for rows is ([`RowRoom`]). Rows of one
//! text resemble each other, so that only whole blocks are held out.
//!
//! The rows in the window are in R as well; a solve that must not know them takes their X^T X out
//! again. So dropping a block costs nothing. Each block draws a fixed pseudo-random number from its
//! place in the stream, and where there is no room the block with the largest number is dropped.
//! This gives an even sample from which no period of the stream can hide, and which is a function
//! of the order of the rows alone. A block with a larger number than one that was dropped is not
//! kept, even if there is room for it. So the kept blocks are those with the smallest numbers of
//! all that came, as many as there is room for now, whatever room there was before.

use crate::calibrate::blocks::{Block, BlocksRecord, SavedReader, SavedRows, draw, records};
use crate::calibrate::pending::Pending;
use crate::calibrate::row_room::{KeptSize, RowRoom};
use crate::host::kernels::stored::StoredRows;
use crate::source::rows::Batch;
use crate::weights::frozen::record::CUT_FOR_ONE_SOLVE;

/// The sample.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    in_features: usize,
    room: RowRoom,
    /// Whether blocks are kept.
    keeps: bool,
    blocks: Vec<Block>,
    /// The size of the kept blocks.
    kept: KeptSize,
    /// The smallest draw among blocks for which there was no room.
    dropped: Option<u64>,
    seen: u64,
    /// Rows of small shards or sequences that wait for more.
    pending: Pending,
    /// Number of batches that gave rows.
    batches: usize,
    sequences: bool,
}

impl Window {
    /// An empty window.
    #[must_use]
    pub(crate) const fn new(in_features: usize) -> Self {
        Self {
            in_features,
            room: RowRoom::WHOLE,
            keeps: true,
            blocks: Vec::new(),
            kept: KeptSize { rows: 0, bytes: 0 },
            dropped: None,
            seen: 0,
            pending: Pending::new(in_features),
            batches: 0,
            sequences: false,
        }
    }

    /// A window that keeps no block, and only cuts what it is offered.
    pub(crate) const fn passing(in_features: usize) -> Self {
        let mut window = Self::new(in_features);
        window.keeps = false;
        window
    }

    /// Keeps no more than there is room for, now and from here on.
    pub(crate) fn keep_within(&mut self, room: RowRoom) {
        self.room = room;
        self.drop_beyond();
    }

    /// Goes on with rows that waited when the window was saved.
    pub(crate) fn wait_with(&mut self, pending: Pending) {
        self.pending = pending;
    }

    /// Takes the rows of a batch. `each` is called for every block that is complete, whether the
    /// window keeps it or not.
    pub(crate) fn offer(&mut self, batch: &Batch, mut each: impl FnMut(StoredRows<'_>)) {
        self.batches += usize::from(!batch.bytes.is_empty());
        self.sequences |= batch.sequences;
        let number_bytes = batch.dtype.size_bytes();
        let least = self.room.joined_rows(number_bytes, batch.sequences);
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

    /// Notes that no more rows will come: the rows of a lone 2-D shard are cut into quarters where
    /// there would be fewer blocks. These blocks have numbers outside of the stream's; should more
    /// rows come after all, the shard is cut differently.
    pub(crate) fn finish(&mut self) {
        if self.unfinished() {
            let mut all = Pending::new(self.in_features);
            self.all_rows().for_each(|rows| all.push(rows));
            let next = self.next_whole_block();
            self.blocks = Vec::new();
            (self.kept, self.dropped) = (KeptSize::default(), None);
            self.seen = CUT_FOR_ONE_SOLVE;
            self.pending = Pending::new(self.in_features);
            self.cut(all.stored(), 4, &mut |_| ());
            self.seen = next;
        }
    }

    /// The number of the first block of which no row has come yet.
    #[must_use]
    pub(crate) fn next_whole_block(&self) -> u64 {
        self.seen + u64::from(self.waiting())
    }

    /// Whether rows wait until there are enough for a block.
    #[must_use]
    pub(crate) const fn waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What a snapshot keeps beside [`all_rows`](Self::all_rows).
    #[must_use]
    pub(crate) fn record(&self) -> BlocksRecord {
        BlocksRecord {
            blocks: records(&self.blocks),
            dropped: self.dropped,
            seen: self.seen,
            pending: self.pending.record(),
            batches: self.batches,
            sequences: self.sequences,
        }
    }

    /// The window with this record and these rows; `None` where the two do not belong together.
    #[must_use]
    pub(crate) fn restore(
        in_features: usize,
        record: &BlocksRecord,
        rows: SavedRows,
    ) -> Option<Self> {
        let mut saved = SavedReader::new(in_features, rows);
        let blocks = saved.blocks(&record.blocks)?;
        let pending = saved.pending(record.pending.as_ref())?;
        saved.is_empty().then(|| Self {
            in_features,
            room: RowRoom::WHOLE,
            keeps: true,
            kept: blocks
                .iter()
                .map(size_of_block)
                .fold(KeptSize::default(), KeptSize::with),
            blocks,
            dropped: record.dropped,
            seen: record.seen,
            pending,
            batches: record.batches,
            sequences: record.sequences,
        })
    }

    /// Every row that is held, including those that wait, in pieces.
    pub(crate) fn all_rows(&self) -> impl Iterator<Item = StoredRows<'_>> {
        let waiting = core::iter::once(self.pending.stored());
        self.blocks.iter().map(Block::stored).chain(waiting)
    }

    /// Takes consecutive rows as a block, or lets them wait until there are `least`.
    fn join(&mut self, own: StoredRows<'_>, least: usize, each: &mut impl FnMut(StoredRows<'_>)) {
        let rows = own.rows();
        let pieces = |of: &Self, rows: StoredRows<'_>| {
            let longest = of.room.block_rows(rows.dtype().size_bytes());
            rows.rows().div_ceil(longest)
        };
        if self.pending.is_empty() && rows >= least {
            self.cut(own, pieces(self, own), each);
            return;
        }
        let nothing = Pending::new(self.in_features);
        let mut joined = core::mem::replace(&mut self.pending, nothing);
        joined.push(own);
        let rows = joined.stored().rows();
        if rows >= least {
            self.cut(joined.stored(), pieces(self, joined.stored()), each);
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
        let number = self.seen;
        self.seen += 1;
        let is_beyond = self.dropped.is_some_and(|least| draw(number) > least);
        if !self.keeps || is_beyond {
            return; // Before it is copied: most often it is so.
        }
        self.blocks
            .push(Block::of(block, number, block.rows(), |row| row));
        self.kept = self.kept.with(KeptSize::of(block));
        self.drop_beyond();
    }

    /// Drops the blocks with the largest draws for which there is no room.
    fn drop_beyond(&mut self) {
        while !self.room.window_holds(self.in_features, self.kept) {
            let last = (0..self.blocks.len()).max_by_key(|&i| self.blocks[i].draw());
            let Some(last) = last else {
                return;
            };
            let dropped = self.blocks.remove(last);
            self.kept = self.kept.without(size_of_block(&dropped));
            let least = self.dropped.unwrap_or(u64::MAX);
            self.dropped = Some(least.min(dropped.draw()));
        }
    }
}

fn size_of_block(block: &Block) -> KeptSize {
    KeptSize::of(block.stored())
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

    /// A W~ that was rounded on a lone shard has seen all of that shard, however it is cut later.
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
        let mut copy = Window::restore(2, &window.record(), saved).unwrap();
        assert_eq!(copy.record(), window.record());
        for w in [&mut window, &mut copy] {
            w.offer(&shard(800, None), |_| ());
        }
        assert_eq!(copy.record(), window.record());
        assert_eq!(lengths(&copy), lengths(&window));
        let mut short = SavedRows::of(window.all_rows());
        short.bytes[0][0].truncate(8);
        assert!(Window::restore(2, &window.record(), short).is_none());
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
                assert!(window.kept.rows <= 4096);
                assert!(
                    window.blocks().len() >= 4 || seen < 4096,
                    "{rows} rows, {seen} seen"
                );
            }
        }
    }

    /// The kept blocks are those that a window of this size would have kept from the first row on,
    /// whatever room there was before, and whatever was saved in between.
    #[test]
    fn less_room_later_is_less_room_from_the_start() {
        let room = |rows: u64| RowRoom::of(85 * rows * 2 * 4 / 64, [2].into_iter());
        let sizes = [
            (300, None),
            (64, Some(1)),
            (900, None),
            (128, Some(2)),
            (256, None),
        ];
        let mut small = Window::new(2);
        small.keep_within(room(1400));
        let (mut large, mut shrinking) = (Window::new(2), Window::new(2));
        for (step, (rows, sequences)) in sizes.into_iter().cycle().take(60).enumerate() {
            // Only blocks that are cut alike are compared.
            for window in [&mut small, &mut large, &mut shrinking] {
                window.offer(&shard(rows.min(340), sequences), |_| ());
            }
            shrinking.keep_within(room(8000_u64.saturating_sub(200 * step as u64).max(1400)));
            let saved = SavedRows::of(shrinking.all_rows());
            let restored = Window::restore(2, &shrinking.record(), saved);
            shrinking = restored.unwrap();
        }
        large.keep_within(room(1400));
        shrinking.keep_within(room(1400));
        let numbers = |of: &Window| of.blocks.iter().map(|b| b.number).collect::<Vec<_>>();
        assert_eq!(numbers(&large), numbers(&small));
        assert_eq!(numbers(&shrinking), numbers(&small));
        assert!(small.blocks().len() >= 4 && small.kept.rows <= 1400);
    }

    /// A small window has enough blocks, in whatever form the rows come.
    #[test]
    fn a_small_window_has_four_blocks() {
        for rows in [48, 100, 1000] {
            for (length, sequences) in [(2048, None), (1024, Some(1)), (100, None), (512, Some(64))]
            {
                let mut window = Window::new(2);
                window.keep_within(RowRoom::of(85 * rows * 2 * 4 / 64, [2].into_iter()));
                for _ in 0..64 {
                    window.offer(&shard(length, sequences), |_| ());
                    assert!(window.kept.rows as u64 <= rows);
                }
                assert!(window.blocks().len() >= 4, "{rows} {length}");
            }
        }
    }

    /// Every second shard is ten times larger, and the sample has blocks of both kinds.
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
