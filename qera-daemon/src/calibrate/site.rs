//! Everything that is gathered of one site: R (unless the method does without it), mean and deviations of x, mean |x|
//! (plain, and the reference's maximum of batch means), the held-out window, and the rows kept aside for scoring.

use std::sync::Arc;

use qera_core::packed::{packed_len, packed_offset};
use qera_core::rows::{Rows, ShapeError};
use qera_core::statistics::{
    Autocorrelation, BatchMaxMeanAbs, BlockShare, MeanAbs, Moments, StatisticError,
};

use crate::calibrate::aside::Aside;
use crate::calibrate::window::Window;
use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::rank_update::{Scratch, fold_products};
use crate::source::rows::Batch;

/// Rows whose numbers are widened at a time.
const WIDENED_ROWS: usize = 16;

/// Lengths that do not fit, which admission rules out: a defect if it is ever seen.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// Rows that are no whole number of rows.
    #[error("{0}")]
    Shape(#[from] ShapeError),
    /// Statistics of another width.
    #[error("{0}")]
    Statistic(#[from] StatisticError),
}

/// The statistics of a site.
#[derive(Debug, Clone)]
pub struct SiteStatistics {
    /// Width of a row.
    pub(crate) in_features: usize,
    /// R, packed upper triangle, the mean over `rows`; empty where R is not kept. Copies of the statistics share it until one
    /// of them folds.
    pub autocorrelation: Arc<PageVec<f64>>,
    /// Mean of x per channel.
    pub(crate) mean: Vec<f64>,
    /// Sum of squared deviations from the mean, per channel.
    pub m2: Vec<f64>,
    /// Mean of |x| per channel.
    pub mean_abs: Vec<f64>,
    /// Maximum over batches of the batch's mean of |x|.
    pub batch_max: Vec<f64>,
    /// Held-out rows.
    pub window: Window,
    /// Rows newer than the last solve point.
    pub(crate) aside: Aside,
    /// Rows folded.
    pub rows: u64,
    /// Rows that were not, because every layer had converged.
    pub(crate) rows_skipped: u64,
    /// Rows folded, as the core counts them for the maximum over batches.
    pub(crate) batch_weight: f64,
}

impl SiteStatistics {
    /// Nothing seen yet; R is kept and nothing is kept aside.
    #[must_use]
    pub fn new(in_features: usize) -> Self {
        Self::with(in_features, true, 0.0)
    }

    /// Nothing seen yet. `keeps_r` says whether R is gathered, `scored_share` how many rows are kept aside
    /// ([`super::scored_share`]).
    #[must_use]
    pub(crate) fn with(in_features: usize, keeps_r: bool, scored_share: f64) -> Self {
        let packed = if keeps_r { packed_len(in_features) } else { 0 };
        Self {
            in_features,
            autocorrelation: Arc::new(PageVec::zeroed(packed)),
            mean: vec![0.0; in_features],
            m2: vec![0.0; in_features],
            mean_abs: vec![0.0; in_features],
            batch_max: vec![0.0; in_features],
            window: Window::new(in_features),
            aside: Aside::new(in_features, scored_share),
            rows: 0,
            rows_skipped: 0,
            batch_weight: 0.0,
        }
    }

    /// Rows that came, folded or not.
    #[must_use]
    pub(crate) const fn rows_seen(&self) -> u64 {
        self.rows + self.rows_skipped
    }

    /// Whether R is kept.
    #[must_use]
    pub(crate) fn keeps_r(&self) -> bool {
        !self.autocorrelation.is_empty()
    }

    /// Folds the rows of one shard in: f32 products, f64 folds in Welford's mean form.
    ///
    /// # Errors
    /// [`FoldError`].
    pub fn fold(
        &mut self,
        shard: &Batch,
        host: Compute<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), FoldError> {
        if self.keeps_r() {
            self.fold_r(shard, host, scratch)?;
        }
        self.fold_channels(shard)?;
        let aside = &mut self.aside;
        self.window.offer(shard, |block| aside.offer(block));
        self.rows += shard.rows() as u64;
        Ok(())
    }

    fn fold_r(
        &mut self,
        shard: &Batch,
        host: Compute<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), FoldError> {
        let m = self.in_features;
        let mut seen = self.rows as f64;
        let r = &mut **Arc::make_mut(&mut self.autocorrelation);
        Autocorrelation::go_on(r, m, seen)?;
        let rows = (shard.stored(), m);
        fold_products(host, rows, r, scratch, |count| {
            let share = BlockShare::new(seen, count as f64);
            seen += count as f64;
            share
        });
        Ok(())
    }

    /// The statistics of single channels: rows are widened a few at a time, so that they stay in cache.
    fn fold_channels(&mut self, shard: &Batch) -> Result<(), FoldError> {
        let m = self.in_features;
        let mut moments = Moments::resume(&mut self.mean, &mut self.m2, self.rows as f64)?;
        let mut mean_abs = MeanAbs::resume(&mut self.mean_abs, self.rows as f64)?;
        let mut batch_max = BatchMaxMeanAbs::resume(&mut self.batch_max, self.batch_weight)?;
        let mut batch_mean = vec![0.0; m];
        let mut wide = vec![0.0; WIDENED_ROWS * m];
        let mut first = 0;
        for &rows in &shard.batches {
            let mut batch = MeanAbs::new(&mut batch_mean)?;
            for row in (first..first + rows).step_by(WIDENED_ROWS) {
                let count = WIDENED_ROWS.min(first + rows - row);
                let piece = &mut wide[..count * m];
                shard.stored().widen(row * m..(row + count) * m, piece);
                let piece = Rows::new(piece, m)?;
                moments.update(&piece)?;
                batch.update(&piece)?;
            }
            mean_abs.merge(&batch)?;
            batch_max.take_batch(&batch)?;
            first += rows;
        }
        self.batch_weight = batch_max.weight();
        Ok(())
    }

    /// E[x^2] per channel: mean^2 + M2 / N, whether R is kept or not.
    #[must_use]
    pub(crate) fn second_moment(&self) -> Vec<f64> {
        let rows = (self.rows as f64).max(1.0);
        let channels = self.mean.iter().zip(&self.m2);
        channels.map(|(mean, m2)| mean * mean + m2 / rows).collect()
    }

    /// The diagonal of R as it was gathered, with the rounding of its f32 products; empty where R is not kept.
    #[must_use]
    pub(crate) fn diagonal(&self) -> Vec<f64> {
        let kept = if self.keeps_r() { self.in_features } else { 0 };
        (0..kept)
            .map(|i| self.autocorrelation[packed_offset(self.in_features, i)])
            .collect()
    }
}
