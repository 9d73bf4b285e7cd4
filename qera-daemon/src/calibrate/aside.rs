//! Rows kept aside between two solve points, to score the corrections of earlier ones. All of these
//! rows are newer than the corrections that they judge (test-then-train).
//!
//! They are nevertheless folded into R at once: what is scored are corrections, not R, and these
//! were solved before the rows came. So R does not depend on what is kept here, and nothing has to
//! be put back later.
//!
//! Scoring a row costs 2 m n flops for each layer, which is more than accumulating it (m^2); it is
//! limited to [`SCORED_COST`] of that. So few rows are kept, and they are spread: [`BLOCK_ROWS`] of
//! each chosen block, because rows of one text resemble each other, and the interval is over
//! blocks, not rows. (This is cluster sampling in two stages: the mean over a block's sampled rows
//! is an unbiased estimate of the block's mean, by weight where rows have weights; Cochran,
//! Sampling Techniques, 10, and [`sample`](crate::calibrate::sample).) Blocks are chosen by a fixed
//! pseudo-random number that is drawn from their place in the stream.

use crate::calibrate::blocks::{Block, BlocksRecord, SavedReader, SavedRows, draw, records};
use crate::calibrate::row_room::{KeptSize, RowRoom};
use crate::calibrate::sample::sampled;
use crate::calibrate::window::Window;
use crate::host::kernels::stored::StoredRows;
use crate::source::rows::Batch;
use crate::weights::layers::Layer;

/// How many rows of a chosen block are kept, spread over it.
const BLOCK_ROWS: usize = 8;
/// The largest share of the rows that is scored.
const SHARE_MAX: f64 = 1.0 / 16.0;
/// The largest cost of scoring, as a share of the cost of accumulating R.
const SCORED_COST: f64 = 0.05;
/// The range of a draw, in f64; a share of it is a chance.
const RANGE: f64 = 18_446_744_073_709_551_616.0;

/// What the cost of scoring a layer depends on, apart from its input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScoredLayer {
    /// out_features.
    pub(crate) out_features: usize,
    /// Rank of its corrections.
    pub(crate) rank: usize,
}

impl ScoredLayer {
    /// The sizes of this layer.
    #[must_use]
    pub(crate) const fn of(layer: &Layer) -> Self {
        Self {
            out_features: layer.out_features,
            rank: layer.rank,
        }
    }
}

/// The share of a site's rows that is scored: at most 1/16, and small enough that scoring two
/// corrections of every layer costs at most a twentieth of accumulating R.
#[must_use]
pub(crate) fn scored_share(in_features: usize, layers: impl Iterator<Item = ScoredLayer>) -> f64 {
    let m = in_features as f64;
    // The cost of x E, and then of (x A) B for two corrections.
    let cost = |layer: ScoredLayer| {
        let (n, k) = (layer.out_features as f64, layer.rank as f64);
        2.0 * m * n + 4.0 * k * (m + n)
    };
    let cost: f64 = layers.map(cost).sum();
    (SCORED_COST * m * m / cost.max(1.0)).min(SHARE_MAX)
}

/// About how many of these rows, in blocks of this length, are kept where there is room for them.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a number of rows"
)]
pub(crate) fn rows_kept(rows: u64, block: usize, share: f64) -> usize {
    let of_block = BLOCK_ROWS as f64 / block.max(1) as f64;
    (rows as f64 * share.min(of_block)) as usize
}

/// The rows kept since the last solve point.
#[derive(Debug, Clone)]
pub struct Aside {
    in_features: usize,
    room: RowRoom,
    share: f64,
    blocks: Vec<Block>,
    /// Number of rows offered since the last solve point.
    offered: usize,
    /// Number of blocks seen since the stream began.
    seen: u64,
    /// Whether the next block began before the last solve point.
    skip: bool,
    /// Cuts rows of a closed site into blocks, because the window does not see them.
    cutter: Window,
}

impl Aside {
    /// An empty set; `share` is `scored_share`, 0 where nothing will be scored.
    #[must_use]
    pub const fn new(in_features: usize, share: f64) -> Self {
        Self {
            in_features,
            room: RowRoom::WHOLE,
            share,
            blocks: Vec::new(),
            offered: 0,
            seen: 0,
            skip: false,
            cutter: Window::passing(in_features),
        }
    }

    /// Keeps no more than there is room for, now and from here on.
    pub(crate) fn keep_within(&mut self, room: RowRoom) {
        self.room = room;
        self.cutter.keep_within(room);
        self.drop_beyond();
    }

    /// A cutter for the rows of a closed site.
    fn new_cutter(&self) -> Window {
        let mut cutter = Window::passing(self.in_features);
        cutter.keep_within(self.room);
        cutter
    }

    /// Takes the rows of a batch of a closed site. `each` is called for every block that is
    /// complete, with its place in the stream.
    pub(crate) fn follow(&mut self, batch: &Batch, mut each: impl FnMut(u64, StoredRows<'_>)) {
        let passing = self.new_cutter();
        let mut cutter = core::mem::replace(&mut self.cutter, passing);
        cutter.offer(batch, |block| {
            each(self.seen, block);
            self.offer(block);
        });
        self.cutter = cutter;
    }

    /// Whether rows of a closed site wait for the rest of their block.
    pub(crate) const fn waiting(&self) -> bool {
        self.cutter.waiting()
    }

    /// Begins anew, because the site was closed or re-opened: rows that wait are given up, and kept
    /// rows are dropped.
    pub(crate) fn begin_anew(&mut self, block_begun: bool) {
        self.cutter = self.new_cutter();
        drop(self.take(block_begun));
    }

    /// Takes a complete block of consecutive rows.
    pub fn offer(&mut self, block: StoredRows<'_>) {
        let rows = block.rows();
        let number = self.seen;
        self.seen += 1;
        if core::mem::take(&mut self.skip) {
            return;
        }
        self.offered += rows;
        let kept = rows.min(BLOCK_ROWS);
        // Rows are kept with this chance, so that on average `share` of the offered rows stay.
        let chance = self.share * rows as f64 / kept.max(1) as f64;
        if kept == 0 || draw(number) as f64 >= chance * RANGE {
            return;
        }
        self.blocks.push(sampled(block, number, kept));
        self.drop_beyond();
    }

    /// Hands out the blocks to be scored at a solve point, and begins anew. `block_begun` says that
    /// rows from before this point wait for the rest of their block.
    pub fn take(&mut self, block_begun: bool) -> Vec<Block> {
        // The draw keeps the share on average; this keeps it in any case.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a number of rows"
        )]
        let allowed = (self.share * self.offered as f64) as usize;
        self.drop_while(|kept| kept.rows > allowed);
        self.offered = 0;
        self.skip = block_begun;
        core::mem::take(&mut self.blocks)
    }

    /// Every kept row, block by block, and the rows that wait.
    pub(crate) fn all_rows(&self) -> impl Iterator<Item = StoredRows<'_>> {
        let kept = self.blocks.iter().map(Block::stored);
        kept.chain(self.cutter.all_rows())
    }

    /// What a snapshot keeps beside the rows.
    #[must_use]
    pub(crate) fn record(&self) -> AsideRecord {
        AsideRecord {
            blocks: BlocksRecord {
                blocks: records(&self.blocks),
                seen: self.seen,
                pending: self.cutter.record().pending,
                ..BlocksRecord::default()
            },
            offered: self.offered,
            skip: self.skip,
        }
    }

    /// Goes on from a record and its rows; `None` where the two do not belong together.
    #[must_use]
    pub(crate) fn restore(
        in_features: usize,
        share: f64,
        record: &AsideRecord,
        rows: SavedRows,
    ) -> Option<Self> {
        let mut saved = SavedReader::new(in_features, rows);
        let blocks = saved.blocks(&record.blocks.blocks)?;
        let mut cutter = Window::passing(in_features);
        cutter.wait_with(saved.pending(record.blocks.pending.as_ref())?);
        saved.is_empty().then(|| Self {
            in_features,
            room: RowRoom::WHOLE,
            share,
            blocks,
            offered: record.offered,
            seen: record.blocks.seen,
            skip: record.skip,
            cutter,
        })
    }

    /// Drops the blocks with the largest draws for which there is no room.
    fn drop_beyond(&mut self) {
        let (room, m) = (self.room, self.in_features);
        self.drop_while(|kept| !room.aside_holds(m, kept));
    }

    /// Drops blocks, the largest draw first, while `too_much` holds.
    fn drop_while(&mut self, too_much: impl Fn(KeptSize) -> bool) {
        let sizes = self.blocks.iter().map(|block| KeptSize::of(block.stored()));
        let mut kept = sizes.fold(KeptSize::default(), KeptSize::with);
        while too_much(kept) {
            let last = (0..self.blocks.len()).max_by_key(|&i| self.blocks[i].draw());
            let Some(last) = last else {
                return;
            };
            let dropped = self.blocks.remove(last);
            kept = kept.without(KeptSize::of(dropped.stored()));
        }
    }
}

/// What a snapshot keeps of the rows aside, beside the rows themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct AsideRecord {
    /// The record of the blocks.
    pub(crate) blocks: BlocksRecord,
    /// Number of rows offered since the last solve point.
    pub(crate) offered: usize,
    /// Whether the next block began before the last solve point.
    pub(crate) skip: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::kernels::row_weights::RowWeights;

    const M: usize = 3;

    fn block(number: usize, rows: usize) -> Vec<f32> {
        (0..rows * M)
            .map(|i| (number * 1000 + i / M) as f32)
            .collect()
    }

    #[test]
    fn the_cost_of_scoring_is_bounded() {
        let layer = |out_features, rank| ScoredLayer { out_features, rank };
        let layers = [layer(4096, 32), layer(1024, 32), layer(1024, 32)];
        let share = scored_share(4096, layers.into_iter());
        let cost = 2.0 * 4096.0 * 6144.0 + 4.0 * 32.0 * (3.0 * 4096.0 + 6144.0);
        assert!((share * cost / (4096.0 * 4096.0) - 0.05).abs() < 1e-12);
        assert!((scored_share(4096, [layer(16, 4)].into_iter()) - 1.0 / 16.0).abs() < 1e-15);
    }

    #[test]
    fn a_bounded_even_sample_of_new_rows() {
        let share = 0.01;
        let mut aside = Aside::new(M, share);
        for number in 0..2000 {
            aside.offer(StoredRows::floats(&block(number, 128), M));
        }
        let blocks = aside.take(true);
        let rows: usize = blocks.iter().map(Block::rows).sum();
        let allowed = share * 2000.0 * 128.0;
        assert!(
            rows as f64 <= allowed && rows as f64 > 0.8 * allowed,
            "{rows}"
        );
        assert!(blocks.iter().all(|b| b.rows() == BLOCK_ROWS));
        let late = blocks.iter().filter(|b| b.number >= 1000).count();
        assert!(
            late * 3 > blocks.len() && late * 3 < 2 * blocks.len(),
            "{late}"
        );
        let values = blocks[0].stored().widened();
        let step = values[M] - values[0];
        assert!((step - 16.0).abs() < 1e-6, "evenly spaced");

        // A block that began before the solve point is not newer than the correction.
        let mut all = Aside::new(M, 1.0);
        all.take(true);
        all.offer(StoredRows::floats(&block(1, BLOCK_ROWS), M));
        all.offer(StoredRows::floats(&block(2, BLOCK_ROWS), M));
        assert_eq!(
            all.take(false).iter().map(|b| b.number).collect::<Vec<_>>(),
            [1]
        );
        let mut many = Aside::new(M, 1.0);
        (0..1000).for_each(|n| many.offer(StoredRows::floats(&block(n, BLOCK_ROWS), M)));
        assert_eq!(many.take(false).len() * BLOCK_ROWS, 4096);
        let mut few = Aside::new(M, 1.0);
        few.keep_within(RowRoom::of(85 * 4 * 3 * 100 / 13 + 85, [M].into_iter()));
        (0..1000).for_each(|n| few.offer(StoredRows::floats(&block(n, BLOCK_ROWS), M)));
        assert_eq!(few.take(false).len(), 100 / BLOCK_ROWS);
    }

    /// The kept rows of a block have its mean by weight, even if one row has most of the weight.
    #[test]
    fn rows_are_kept_by_weight() {
        let mut values = vec![1.0; 128 * M];
        values[20 * M..21 * M].fill(5.0);
        let mut weights = vec![0.5; 128];
        weights[20] = 64.0;
        let weights = RowWeights::new(weights);
        let mut aside = Aside::new(M, 1.0);
        aside.offer(StoredRows::floats(&values, M).weighted(Some(&weights)));
        let blocks = aside.take(false);
        let kept = blocks[0].stored();
        let of = |row: usize| kept.weight_of(row) * f64::from(kept.widened()[row * M]);
        let mean = (0..BLOCK_ROWS).map(of).sum::<f64>() / kept.extent().weight;
        let expected = (64.0 * 5.0 + 127.0 * 0.5) / (64.0 + 127.0 * 0.5);
        assert!((mean / expected - 1.0).abs() < 1e-6, "{mean} {expected}");
    }

    #[test]
    fn it_continues_from_its_record() {
        let mut aside = Aside::new(M, 0.5);
        (0..40).for_each(|n| aside.offer(StoredRows::floats(&block(n, 32), M)));
        let saved = SavedRows::of(aside.all_rows());
        let mut copy = Aside::restore(M, 0.5, &aside.record(), saved.clone()).unwrap();
        for a in [&mut aside, &mut copy] {
            (40..80).for_each(|n| a.offer(StoredRows::floats(&block(n, 32), M)));
        }
        assert_eq!(aside.record(), copy.record());
        assert!(Aside::restore(M, 0.5, &aside.record(), saved).is_none());
    }
}
