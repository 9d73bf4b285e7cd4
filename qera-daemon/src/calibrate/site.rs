//! Everything that is gathered of one site: R (unless the method does without it), mean and
//! deviations of x, mean |x| (plain, and the reference's maximum of batch means), the held-out
//! window, and the rows kept aside for scoring. What these are of rows with weights stands in
//! `host/kernels/row_weights.rs`.

use std::sync::Arc;

use qera_core::packed::packed_offset;
use qera_core::rows::{Rows, ShapeError};
use qera_core::statistics::{BatchMaxMeanAbs, MeanAbs, Moments, StatisticError};

use crate::calibrate::aside::Aside;
use crate::calibrate::outputs::SiteOutputs;
use crate::calibrate::row_room::RowRoom;
use crate::calibrate::summed_part::SummedPart;
use crate::calibrate::window::Window;
use crate::host::compute::Compute;
use crate::host::kernels::rank_update::Scratch;
use crate::host::kernels::row_weights::Extent;
use crate::host::kernels::stored::StoredRows;
use crate::host::second_moment::channels::ChannelMoments;
use crate::host::second_moment::massive::entry_errors;
use crate::host::second_moment::{SecondMoment, SecondMomentKind};
use crate::source::rows::Batch;
use crate::weights::site_layers::SiteLayers;
use crate::weights::sites::Site;

/// Rows whose numbers are widened at a time.
const WIDENED_ROWS: usize = 16;

/// Rows whose lengths do not fit, which admission rules out. This would be a defect.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The numbers are no whole number of rows.
    #[error("{0}")]
    Shape(#[from] ShapeError),
    /// The statistics have another width.
    #[error("{0}")]
    Statistic(#[from] StatisticError),
    /// Weights of a layer that is sketched, which cannot be read.
    #[error("{0}")]
    Weights(Box<dyn core::error::Error + Send + Sync>),
}

/// What rows are folded with.
pub(crate) struct FoldTools<'t> {
    /// Where it is computed.
    pub(crate) compute: Compute<'t>,
    /// Room for products.
    pub(crate) scratch: &'t mut Scratch,
    /// The layers of a site that is sketched; without them the rows wait.
    pub(crate) layers: Option<SiteLayers<'t>>,
}

/// The statistics of a site.
#[derive(Debug, Clone)]
pub struct SiteStatistics {
    /// Width of a row.
    pub(crate) in_features: usize,
    /// R, or the part of it that is kept: the mean over `rows`, by their weights.
    pub(crate) second_moment: SecondMoment,
    /// The mean of |x| for each channel.
    pub mean_abs: Vec<f64>,
    /// For each channel, the maximum over batches of the batch's mean of |x|.
    pub batch_max: Vec<f64>,
    /// Held-out rows.
    pub(crate) window: Window,
    /// Rows newer than the last solve point.
    pub(crate) aside: Aside,
    /// Number of rows folded.
    pub rows: u64,
    /// Number of rows left out, because every layer had converged.
    pub(crate) rows_skipped: u64,
    /// Sum of the weights of the folded rows; their number where no row came with a weight.
    pub(crate) weight: f64,
    /// Sum of the squares of these weights; `None` where no row came with a weight.
    pub(crate) weight_squares: Option<f64>,
    /// The part that came as sums.
    pub(crate) summed: SummedPart,
    /// What stands for G of each layer, where R is not gathered and was not given up.
    pub(crate) outputs: Option<SiteOutputs>,
}

impl SiteStatistics {
    /// Empty statistics. `kind` says how much of R is gathered, and `scored_share` how many
    /// rows are kept aside (`aside::scored_share`).
    #[must_use]
    pub(crate) fn new(in_features: usize, kind: SecondMomentKind, scored_share: f64) -> Self {
        Self {
            in_features,
            second_moment: SecondMoment::new(kind, in_features),
            mean_abs: vec![0.0; in_features],
            batch_max: vec![0.0; in_features],
            window: Window::new(in_features),
            aside: Aside::new(in_features, scored_share),
            rows: 0,
            rows_skipped: 0,
            weight: 0.0,
            weight_squares: None,
            summed: SummedPart::default(),
            outputs: None,
        }
    }

    /// Nothing seen yet of this site.
    #[must_use]
    pub(crate) fn of_site(site: &Site, scored_share: f64) -> Self {
        let sketch = site.sketch.as_ref();
        Self {
            outputs: sketch.map(|of| SiteOutputs::new(site.in_features, of)),
            ..Self::new(site.in_features, site.second_moment, scored_share)
        }
    }

    /// Statistics from an E[x^2] that the user gave, over this many rows. None of these rows is
    /// here.
    #[must_use]
    pub(crate) fn given(mean_squares: Vec<f64>, rows: u64) -> Self {
        let in_features = mean_squares.len();
        Self {
            second_moment: SecondMoment::given(mean_squares),
            rows,
            weight: rows as f64,
            ..Self::new(in_features, SecondMomentKind::Given, 0.0)
        }
    }

    /// Statistics of no row. The whole of R will be gathered, and nothing kept aside.
    #[must_use]
    pub fn whole(in_features: usize) -> Self {
        Self::new(in_features, SecondMomentKind::Packed, 0.0)
    }

    /// Statistics that were gathered elsewhere: R over this many rows, upper triangle by rows,
    /// without any row.
    #[must_use]
    pub fn from_autocorrelation(r: Vec<f64>, in_features: usize, rows: u64) -> Self {
        let mut channels = ChannelMoments::new(in_features);
        for (i, m2) in channels.m2.iter_mut().enumerate() {
            *m2 = rows as f64 * r[packed_offset(in_features, i)].max(0.0);
        }
        let r = Arc::new(r.into());
        Self {
            second_moment: SecondMoment::Packed { r, channels },
            rows,
            weight: rows as f64,
            ..Self::whole(in_features)
        }
    }

    /// Keeps no more rows than there is room for, now and from here on.
    pub(crate) fn keep_within(&mut self, room: RowRoom) {
        self.window.keep_within(room);
        self.aside.keep_within(room);
    }

    /// The places in the stream of the blocks that are held out.
    #[must_use]
    pub fn held_out_blocks(&self) -> Vec<u64> {
        self.window.blocks().iter().map(|b| b.number).collect()
    }

    /// The number of rows that came, folded or not.
    #[must_use]
    pub(crate) const fn rows_seen(&self) -> u64 {
        self.rows + self.rows_skipped
    }

    /// The number of rows folded, and their weight.
    #[must_use]
    pub(crate) const fn extent(&self) -> Extent {
        Extent {
            rows: self.rows,
            weight: self.weight,
            squares: self.weight_squares,
        }
    }

    /// Notes that rows with weights came, so that weights are counted from now on.
    pub(crate) fn note_weights(&mut self, batch: &Batch) {
        if batch.weights.is_some() {
            self.weight_squares.get_or_insert(self.rows as f64);
        }
    }

    /// Folds the rows of one shard in: f32 products (f64 ones for massive channels), f64 folds in
    /// Welford's mean form.
    ///
    /// # Errors
    /// [`FoldError`].
    pub fn fold(
        &mut self,
        batch: &Batch,
        compute: Compute<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), FoldError> {
        let layers = None;
        self.fold_with(
            batch,
            &mut FoldTools {
                compute,
                scratch,
                layers,
            },
        )
    }

    /// The same, with the layers whose output errors are sketched.
    ///
    /// # Errors
    /// [`FoldError`].
    pub(crate) fn fold_with(
        &mut self,
        batch: &Batch,
        tools: &mut FoldTools<'_>,
    ) -> Result<(), FoldError> {
        self.fold_by(batch, tools, |second_moment, rows, seen, tools| {
            second_moment.fold(tools.compute, rows, seen, tools.scratch)
        })
    }

    /// The same, where `fold_r` folds the rows, which come after an extent, into R.
    ///
    /// # Errors
    /// [`FoldError`].
    pub(crate) fn fold_by(
        &mut self,
        batch: &Batch,
        tools: &mut FoldTools<'_>,
        fold_r: impl FnOnce(
            &mut SecondMoment,
            StoredRows<'_>,
            &Extent,
            &mut FoldTools<'_>,
        ) -> Result<(), StatisticError>,
    ) -> Result<(), FoldError> {
        self.note_weights(batch);
        let (rows, seen) = (batch.stored(), self.extent());
        // This comes first, because it shows which channels need more than f32 products.
        self.weight = self.fold_channels(batch)?;
        fold_r(&mut self.second_moment, rows, &seen, tools)?;
        if let (Some(outputs), Some(layers)) = (&mut self.outputs, &tools.layers) {
            let folded = outputs.fold(rows, layers);
            folded.map_err(|fatal| FoldError::Weights(Box::new(fatal)))?;
        }
        let aside = &mut self.aside;
        self.window.offer(batch, |block| aside.offer(block));
        self.rows += batch.rows() as u64;
        self.weight_squares = seen.with(&rows.extent()).squares;
        Ok(())
    }

    /// Folds the statistics of single channels. Rows are widened a few at a time, so that they stay
    /// in the cache. Returns the weight of all rows.
    fn fold_channels(&mut self, batch: &Batch) -> Result<f64, FoldError> {
        let (m, stored, weight) = (self.in_features, batch.stored(), self.weight);
        let channels = self.second_moment.channels_mut();
        let mut moments = Moments::resume(&mut channels.mean, &mut channels.m2, weight)?;
        let mut mean_abs = MeanAbs::resume(&mut self.mean_abs, weight)?;
        let mut batch_max = BatchMaxMeanAbs::resume(&mut self.batch_max, weight)?;
        let mut batch_mean = vec![0.0; m];
        let mut wide = vec![0.0; WIDENED_ROWS * m];
        let mut first = 0;
        for &rows in &batch.batches {
            let mut own = MeanAbs::new(&mut batch_mean)?;
            for row in (first..first + rows).step_by(WIDENED_ROWS) {
                let count = WIDENED_ROWS.min(first + rows - row);
                let piece = &mut wide[..count * m];
                stored.widen(row * m..(row + count) * m, piece);
                let mut piece = Rows::new(piece, m)?;
                if let Some(weights) = stored.weights {
                    piece = piece.weighted(weights.slice(row..row + count).values())?;
                }
                moments.update(&piece)?;
                own.update(&piece)?;
            }
            mean_abs.merge(&own)?;
            batch_max.take_batch(&own)?;
            first += rows;
        }
        Ok(batch_max.weight())
    }

    /// E[x^2] of each channel, whether the whole of R is gathered or not.
    #[must_use]
    pub(crate) fn mean_squares(&self) -> Vec<f64> {
        self.second_moment.mean_squares(self.weight)
    }

    /// The diagonal of R.
    #[must_use]
    pub(crate) fn diagonal(&self) -> Vec<f64> {
        self.second_moment.diagonal(self.weight)
    }

    /// The absolute uncertainty of each of R's diagonal elements; empty where R is not gathered.
    #[must_use]
    pub(crate) fn diagonal_errors(&self) -> Vec<f64> {
        match &self.second_moment {
            SecondMoment::Packed { channels, .. } => {
                entry_errors(channels, &self.extent(), self.summed.error(self.weight))
            }
            SecondMoment::Diagonal(_) | SecondMoment::Given(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::blocks::{Block, SavedRows};
    use crate::host::cores::Cores;
    use crate::host::kernels::row_weights::RowWeights;
    use crate::host::kernels::{ENTRY_ERROR, Kernel};
    use crate::host::rounding::narrow;
    use qera_core::dtype::FloatDtype;

    const M: usize = 17;
    const SEQUENCE: usize = 70;

    /// Rows as they come of bf16 numbers, channel 3 of them massive.
    fn batch(rows: usize, phase: f64, weights: Option<&[f32]>) -> Batch {
        let number = |i: usize| {
            let size = if i % M == 3 { 600.0 } else { 1.0 };
            let value = size * ((i as f64 * 0.731 + phase).sin() + 0.3);
            (narrow(value).to_bits() >> 16) as u16
        };
        let bytes: Vec<u8> = (0..rows * M)
            .flat_map(|i| number(i).to_le_bytes())
            .collect();
        Batch {
            site: 0,
            in_features: M,
            bytes: bytes.into(),
            dtype: FloatDtype::Bf16,
            weights: weights.map(|weights| RowWeights::new(weights.to_vec())),
            batches: vec![SEQUENCE; rows / SEQUENCE],
            sequences: true,
        }
    }

    fn weights(rows: usize, factor: f32) -> Vec<f32> {
        let weight = |i: usize| factor * [0.25_f32, 3.0, 1.0, 0.1, 7.5][(i * i) % 5];
        (0..rows).map(weight).collect()
    }

    fn folded(kernel: Kernel, batches: &[Batch]) -> SiteStatistics {
        let cores = Cores::new(1);
        let compute = Compute::new(kernel, &cores);
        let mut statistics = SiteStatistics::new(M, SecondMomentKind::Packed, 0.5);
        for batch in batches {
            let mut scratch = Scratch::default();
            statistics.fold(batch, compute, &mut scratch).unwrap();
        }
        statistics
    }

    /// sum w f(x) / sum w of all rows, in f64.
    fn mean(batches: &[Batch], f: impl Fn(&[f64]) -> f64) -> f64 {
        let (mut sum, mut weight) = (0.0, 0.0);
        for rows in batches.iter().map(Batch::stored) {
            let numbers = rows.widened();
            for (row, x) in numbers.chunks_exact(M).enumerate() {
                let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
                sum += rows.weight_of(row) * f(&x);
                weight += rows.weight_of(row);
            }
        }
        sum / weight
    }

    /// Three shards: one with weights, one without, and one whose weights are 1e20 times smaller.
    fn shards() -> [Batch; 3] {
        let rows = [8 * SEQUENCE, 2 * SEQUENCE, 16 * SEQUENCE];
        [
            batch(rows[0], 0.0, Some(&weights(rows[0], 1.0))),
            batch(rows[1], 1.0, None),
            batch(rows[2], 2.0, Some(&weights(rows[2], 1e-20))),
        ]
    }

    #[test]
    fn statistics_of_rows_with_weights_are_means_by_weight() {
        let shards = shards();
        for shards in [&shards[..], &shards[..1], &shards[2..]] {
            for kernel in Kernel::available() {
                let found = folded(kernel, shards);
                let r = found.second_moment.packed().unwrap();
                let moments = found.second_moment.channels();
                for i in 0..M {
                    let square = mean(shards, |x| x[i] * x[i]);
                    for (j, r_ij) in (i..M).zip(r.row(i)) {
                        let expected = mean(shards, |x| x[i] * x[j]);
                        let scale = (square * mean(shards, |x| x[j] * x[j])).sqrt();
                        // Channel 3 is massive, so that its products are in f64.
                        let most = if i == 3 || j == 3 { 1e-14 } else { ENTRY_ERROR };
                        let error = (r_ij - expected).abs() / scale;
                        assert!(error <= most, "{} {i} {j}: {error:e}", kernel.name());
                    }
                    let average = mean(shards, |x| x[i]);
                    let spread = mean(shards, |x| (x[i] - average).powi(2));
                    let near = |a: f64, b: f64| (a - b).abs() <= 1e-12 * square.sqrt().max(square);
                    assert!(near(moments.mean[i], average));
                    assert!(near(moments.m2[i] / found.weight, spread));
                    assert!(near(found.mean_squares()[i], square));
                    assert!(near(found.mean_abs[i], mean(shards, |x| x[i].abs())));
                }
            }
        }
    }

    /// The maximum over batches is taken over their means by weight.
    #[test]
    fn the_mean_of_a_batch_is_by_weight() {
        let rows = 2 * SEQUENCE;
        let shard = batch(rows, 0.5, Some(&weights(rows, 3.0)));
        let found = folded(Kernel::best(), core::slice::from_ref(&shard));
        let of_batch = |number: usize, channel: usize| {
            let rows = shard.stored();
            let rows = rows.slice(number * SEQUENCE..(number + 1) * SEQUENCE);
            let numbers = rows.widened();
            let terms = numbers.chunks_exact(M).enumerate();
            let terms = terms.map(|(i, x)| rows.weight_of(i) * f64::from(x[channel].abs()));
            terms.sum::<f64>() / rows.extent().weight
        };
        for (channel, largest) in found.batch_max.iter().enumerate() {
            let expected = of_batch(0, channel).max(of_batch(1, channel));
            assert!((largest - expected).abs() <= 1e-13 * expected);
        }
    }

    /// Weights may be any finite numbers above 0.
    #[test]
    fn no_weight_overflows() {
        let rows = 2 * SEQUENCE;
        for (least, most) in [(f32::MAX, f32::MAX), (f32::from_bits(1), f32::from_bits(1))] {
            let weights: Vec<f32> = (0..rows).map(|i| [least, most][i % 2]).collect();
            let [same, plain] = [Some(&weights[..]), None].map(|w| batch(rows, 0.0, w));
            for kernel in Kernel::available() {
                let [same, plain] =
                    [&same, &plain].map(|b| folded(kernel, core::slice::from_ref(b)));
                let [a, b] = [&same, &plain].map(SiteStatistics::diagonal);
                let alike = a
                    .iter()
                    .zip(&b)
                    .all(|(a, b)| (a - b).abs() <= ENTRY_ERROR * b);
                assert!(alike, "{}", kernel.name());
                assert!((same.extent().effective_rows() - rows as f64).abs() < 1e-6);
            }
        }
        // Where weights differ by 1e80, only the heavy rows count.
        let extremes: Vec<f32> = (0..rows).map(|i| [1e-40_f32, 1e38][i % 2]).collect();
        let shard = batch(rows, 0.0, Some(&extremes));
        let found = folded(Kernel::best(), core::slice::from_ref(&shard));
        let heavy = batch(rows, 0.0, None);
        let rows = heavy.stored();
        let numbers = rows.widened();
        let odd = numbers.chunks_exact(M).skip(1).step_by(2);
        let expected = odd.map(|x| f64::from(x[0]).powi(2)).sum::<f64>() / SEQUENCE as f64;
        assert!((found.diagonal()[0] / expected - 1.0).abs() <= ENTRY_ERROR);
    }

    /// A power of 4 common to all weights changes no bit of a mean, nor of what is kept.
    #[test]
    fn a_factor_common_to_all_weights_changes_nothing() {
        let rows = 10 * SEQUENCE;
        let of = |factor: f32| {
            let shard = batch(rows, 0.0, Some(&weights(rows, factor)));
            folded(Kernel::best(), core::slice::from_ref(&shard))
        };
        let (one, larger) = (of(1.0), of(256.0));
        let r = |of: &SiteStatistics| of.second_moment.packed().map(|r| r.diagonal());
        assert_eq!(r(&one), r(&larger));
        assert_eq!(
            one.second_moment.channels().mean,
            larger.second_moment.channels().mean
        );
        assert_eq!(
            (&one.mean_abs, &one.batch_max),
            (&larger.mean_abs, &larger.batch_max)
        );
        assert_eq!(one.mean_squares(), larger.mean_squares());
        let effective = |of: &SiteStatistics| of.extent().effective_rows().to_bits();
        assert_eq!(effective(&one), effective(&larger));
        assert!(one.extent().effective_rows() < 0.75 * rows as f64);
        let third = of(3.0);
        let pairs = one.diagonal().into_iter().zip(third.diagonal());
        assert!(
            pairs
                .into_iter()
                .all(|(a, b)| (a - b).abs() <= ENTRY_ERROR * a)
        );
    }

    /// Blocks have the weights of their rows, also when joined with rows without weights, and after
    /// a restart.
    #[test]
    fn kept_rows_keep_their_weights() {
        let short = |weights: Option<&[f32]>| Batch {
            batches: vec![35],
            ..batch(35, 0.0, weights)
        };
        let own = weights(35, 1.0);
        let mut statistics = folded(Kernel::best(), &[short(None), short(Some(&own))]);
        let joined = [vec![1.0; 35], own.clone()].concat();
        let held = |of: &SiteStatistics, block: usize| -> Vec<f32> {
            let weights = of.window.blocks()[block].stored().weights;
            weights.unwrap().values().to_vec()
        };
        assert_eq!(held(&statistics, 0), joined);
        let all = SavedRows::of(statistics.window.all_rows());
        assert_eq!(all.weights, joined);
        // 35 rows wait with weights.
        let cores = Cores::new(1);
        let compute = Compute::new(Kernel::best(), &cores);
        let fold = |statistics: &mut SiteStatistics, batch: &Batch| {
            let mut scratch = Scratch::default();
            statistics.fold(batch, compute, &mut scratch).unwrap();
        };
        fold(&mut statistics, &short(Some(&own)));
        let (window, aside) = (statistics.window.record(), statistics.aside.record());
        let saved = SavedRows::of(statistics.window.all_rows());
        let mut copy = statistics.clone();
        copy.window = Window::restore(M, &window, saved).unwrap();
        let saved_aside = SavedRows::of(statistics.aside.all_rows());
        copy.aside = Aside::restore(M, 0.5, &aside, saved_aside).unwrap();
        for of in [&mut statistics, &mut copy] {
            fold(of, &short(None));
        }
        assert_eq!(held(&copy, 1), [own, vec![1.0; 35]].concat());
        assert_eq!(held(&copy, 1), held(&statistics, 1));
        let kept = |of: &mut SiteStatistics| -> Vec<_> {
            let blocks = of.aside.take(false);
            blocks
                .into_iter()
                .map(|block: Block| block.weights)
                .collect()
        };
        let aside = kept(&mut copy);
        assert!(!aside.is_empty() && aside.iter().all(Option::is_some));
        assert_eq!(aside, kept(&mut statistics));
        // Weights that are missing, or that no row can have, are damage.
        let mut short = SavedRows::of(statistics.window.all_rows());
        short.weights.pop();
        let record = statistics.window.record();
        assert!(Window::restore(M, &record, short.clone()).is_none());
        short.weights.push(-1.0);
        assert!(Window::restore(M, &record, short).is_none());
    }
}
