//! Follows a closed site: all of its layers have converged, and only a part of its rows is folded,
//! or none (`--after-convergence`).
//!
//! Every row is still offered to the rows kept aside, in the blocks that the window cuts. A share
//! of these blocks is folded, chosen by a fixed pseudo-random number that is drawn from the block's
//! place in the stream. So whole texts are folded, and which ones depends on the order of the rows
//! alone. The window sees only what is folded, because its rows must be in R.

use qera_core::dtype::FloatDtype;

use crate::calibrate::aside::Aside;
use crate::calibrate::blocks::{Block, draw};
use crate::calibrate::site::{FoldError, FoldTools, SiteStatistics};
use crate::host::kernels::row_weights::RowWeights;
use crate::host::kernels::stored::{StoredNumbers, StoredRows};
use crate::source::rows::Batch;

/// The range of a draw, in f64; a share of it is a chance.
pub(crate) const RANGE: f64 = 18_446_744_073_709_551_616.0;
/// Distinguishes these draws from those that choose the rows kept aside.
pub(crate) const OTHER_DRAWS: u64 = 1 << 63;

impl SiteStatistics {
    /// Folds a share of a batch's blocks, and counts the other rows as skipped.
    ///
    /// # Errors
    /// [`FoldError`].
    pub(crate) fn follow(
        &mut self,
        batch: &Batch,
        share: f64,
        tools: &mut FoldTools<'_>,
    ) -> Result<(), FoldError> {
        let m = self.in_features;
        self.note_weights(batch);
        // Rows that wait for the rest of their block are not folded so far.
        self.rows_skipped += batch.rows() as u64;
        // The rows aside must see every block here, and once.
        let mut aside = core::mem::replace(&mut self.aside, Aside::new(m, 0.0));
        let mut folded = Ok(());
        aside.follow(batch, |number, block| {
            if folded.is_ok() && (draw(number | OTHER_DRAWS) as f64) < share * RANGE {
                let rows = block.rows() as u64;
                folded = self.fold_with(&own(batch, block), tools);
                self.rows_skipped -= rows;
            }
        });
        self.aside = aside;
        folded
    }

    /// Hands out the rows kept aside, at a solve point.
    pub(crate) fn take_aside(&mut self, closed: bool) -> Vec<Block> {
        self.aside.take(if closed {
            self.aside.waiting()
        } else {
            self.window.waiting()
        })
    }

    /// Notes that the site is closed from now on, or open again.
    pub(crate) fn begin_folding_anew(&mut self, closed: bool) {
        self.aside.begin_anew(!closed && self.window.waiting());
    }
}

/// Makes a batch of a batch's block.
fn own(batch: &Batch, block: StoredRows<'_>) -> Batch {
    let (bytes, dtype) = match block.numbers {
        StoredNumbers::Bytes(bytes, dtype) => (bytes.to_vec(), dtype),
        StoredNumbers::Floats(numbers) => {
            let bytes = numbers.iter().flat_map(|x| x.to_le_bytes());
            (bytes.collect(), FloatDtype::F32)
        }
    };
    Batch {
        site: batch.site,
        in_features: batch.in_features,
        batches: vec![block.rows()],
        bytes: bytes.into(),
        dtype,
        weights: block
            .weights
            .map(|weights| RowWeights::new(weights.values().to_vec())),
        sequences: batch.sequences,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::blocks::SavedRows;
    use crate::host::compute::Compute;
    use crate::host::cores::Cores;
    use crate::host::kernels::Kernel;
    use crate::host::kernels::rank_update::Scratch;
    use crate::host::second_moment::SecondMomentKind;

    const M: usize = 2;

    /// `sequences` of `length` rows each.
    fn shard(sequences: usize, length: usize, value: f32) -> Batch {
        Batch {
            site: 0,
            in_features: M,
            bytes: value.to_le_bytes().repeat(sequences * length * M).into(),
            dtype: FloatDtype::F32,
            weights: None,
            batches: vec![length; sequences],
            sequences: true,
        }
    }

    fn fold(statistics: &mut SiteStatistics, batch: &Batch) {
        let (kernel, cores) = (Kernel::best(), Cores::new(1));
        let compute = Compute::new(kernel, &cores);
        statistics
            .fold(batch, compute, &mut Scratch::default())
            .unwrap();
    }

    fn follow(statistics: &mut SiteStatistics, batch: &Batch, share: f64) {
        let (kernel, cores) = (Kernel::best(), Cores::new(1));
        let compute = Compute::new(kernel, &cores);
        let mut tools = FoldTools {
            compute,
            scratch: &mut Scratch::default(),
            layers: None,
        };
        statistics.follow(batch, share, &mut tools).unwrap();
    }

    #[test]
    fn a_share_is_folded_and_every_row_is_counted() {
        let mut statistics = SiteStatistics::new(M, SecondMomentKind::Packed, 1.0 / 16.0);
        fold(&mut statistics, &shard(4, 128, 1.0));
        statistics.begin_folding_anew(true);
        for _ in 0..500 {
            follow(&mut statistics, &shard(4, 128, 1.0), 1.0 / 16.0);
        }
        assert_eq!(statistics.rows_seen(), 501 * 512);
        assert_eq!(statistics.rows % 128, 0, "whole sequences");
        let folded = (statistics.rows - 512) as f64 / (500.0 * 512.0);
        assert!((0.045..0.08).contains(&folded), "{folded}");
        assert!(!statistics.take_aside(true).is_empty());
        assert_eq!(
            statistics
                .window
                .blocks()
                .iter()
                .map(Block::rows)
                .sum::<usize>()
                % 128,
            0
        );

        let before = statistics.clone();
        for _ in 0..100 {
            follow(&mut statistics, &shard(4, 128, 9.0), 0.0);
        }
        assert_eq!(statistics.second_moment, before.second_moment);
        assert_eq!(statistics.window.record(), before.window.record());
        assert_eq!(statistics.rows_skipped, before.rows_skipped + 51_200);
    }

    /// A decoding engine writes single tokens: 64 of them make a block, or none does.
    #[test]
    fn single_tokens_are_joined() {
        let mut statistics = SiteStatistics::new(M, SecondMomentKind::Packed, 1.0);
        statistics.begin_folding_anew(true);
        for _ in 0..10 {
            follow(&mut statistics, &shard(10, 1, 1.0), 1.0);
        }
        // The seventh shard completes 64 rows; 36 wait.
        assert_eq!((statistics.rows, statistics.rows_skipped), (64, 36));
        // Rows that wait when the site is re-opened stay unfolded, and do not score later
        // corrections.
        statistics.begin_folding_anew(false);
        fold(&mut statistics, &shard(1, 64, 1.0));
        assert_eq!((statistics.rows, statistics.rows_skipped), (128, 36));
        assert_eq!(statistics.take_aside(false).len(), 1);
    }

    /// Folded blocks bring their weights. The state is one with weights as soon as such rows came,
    /// folded or not.
    #[test]
    fn what_is_folded_keeps_its_weights() {
        let weights: Vec<f32> = (0..256).map(|i| [0.5, 3.0][i % 2]).collect();
        let weighted = Batch {
            weights: Some(RowWeights::new(weights)),
            ..shard(2, 128, 1.0)
        };
        let new = || SiteStatistics::new(M, SecondMomentKind::Packed, 1.0);
        let [mut open, mut closed, mut unfolded] = [new(), new(), new()];
        fold(&mut open, &weighted);
        follow(&mut closed, &weighted, 1.0);
        follow(&mut unfolded, &weighted, 0.0);
        assert_eq!(closed.second_moment, open.second_moment);
        assert_eq!(closed.extent(), open.extent());
        assert!((open.weight - 448.0).abs() < 1e-9);
        assert_eq!((unfolded.rows, unfolded.weight_squares), (0, Some(0.0)));
        assert!(
            !unfolded
                .aside
                .all_rows()
                .any(|rows| rows.weights.is_none() && rows.rows() > 0)
        );
    }

    #[test]
    fn what_waits_is_saved() {
        let mut statistics = SiteStatistics::new(M, SecondMomentKind::Packed, 1.0);
        follow(&mut statistics, &shard(40, 1, 3.0), 0.0);
        let record = statistics.aside.record();
        let saved = SavedRows::of(statistics.aside.all_rows());
        let bytes: usize = saved.bytes[0].iter().map(|piece| piece.len()).sum();
        assert_eq!(bytes, 4 * 40 * M);
        let mut copy = statistics.clone();
        copy.aside = Aside::restore(M, 1.0, &record, saved).unwrap();
        for s in [&mut statistics, &mut copy] {
            follow(s, &shard(40, 1, 4.0), 1.0);
        }
        assert_eq!((copy.rows, copy.rows_skipped), (64, 16));
        assert_eq!(copy.aside.record(), statistics.aside.record());
        assert_eq!(copy.second_moment, statistics.second_moment);
    }
}
