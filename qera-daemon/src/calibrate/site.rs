//! Everything that is gathered of one site: R, mean |x| (plain, and the reference's maximum of batch
//! means), and the held-out window. E[x^2] is the diagonal of R and is not kept twice.

use nalgebra::DMatrixView;
use qera_core::packed::{packed_len, packed_offset};
use qera_core::rows::{Rows, ShapeError};
use qera_core::statistics::{Autocorrelation, BatchMaxMeanAbs, MeanAbs, StatisticError};

use crate::source::SiteRows;

use super::rank_update::{ROWS_MAX, products};
use super::window::Window;

/// f32 numbers of scratch that [`SiteStatistics::fold`] needs.
#[must_use]
pub const fn scratch_len(in_features: usize) -> usize {
    in_features * in_features
}

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
#[derive(Debug)]
pub struct SiteStatistics {
    /// Width of a row.
    pub in_features: usize,
    /// R, packed upper triangle, the mean over `rows`.
    pub autocorrelation: Vec<f64>,
    /// Mean of |x| per channel.
    pub mean_abs: Vec<f64>,
    /// Maximum over batches of the batch's mean of |x|.
    pub batch_max: Vec<f64>,
    /// Held-out rows.
    pub window: Window,
    /// Rows folded.
    pub rows: u64,
    batch_weight: f64,
    batch_scratch: Vec<f64>,
}

impl SiteStatistics {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(in_features: usize) -> Self {
        Self {
            in_features,
            autocorrelation: vec![0.0; packed_len(in_features)],
            mean_abs: vec![0.0; in_features],
            batch_max: vec![0.0; in_features],
            window: Window::new(in_features),
            rows: 0,
            batch_weight: 0.0,
            batch_scratch: vec![0.0; in_features],
        }
    }

    /// Folds the rows of one shard in: f32 products, f64 folds in Welford's mean form.
    ///
    /// # Errors
    /// [`FoldError`].
    pub fn fold(&mut self, shard: &SiteRows, scratch: &mut [f32]) -> Result<(), FoldError> {
        let m = self.in_features;
        let sums = &mut scratch[..scratch_len(m)];
        let mut r = Autocorrelation::resume(&mut self.autocorrelation, m, self.rows as f64)?;
        for piece in shard.values.chunks(ROWS_MAX * m) {
            products(piece, m, sums);
            r.fold_block(
                DMatrixView::from_slice(sums, m, m),
                (piece.len() / m) as f64,
            )?;
        }
        let mut mean_abs = MeanAbs::resume(&mut self.mean_abs, self.rows as f64)?;
        let mut batch_max = BatchMaxMeanAbs::resume(&mut self.batch_max, self.batch_weight)?;
        let mut rest = &shard.values[..];
        for &rows in &shard.batches {
            let (own, after) = rest.split_at(rows * m);
            let own = Rows::new(own, m)?;
            mean_abs.update(&own)?;
            batch_max.update_batch(&own, &mut self.batch_scratch)?;
            rest = after;
        }
        self.batch_weight = batch_max.weight();
        self.window.offer(shard);
        self.rows += (shard.values.len() / m) as u64;
        Ok(())
    }

    /// E[x^2] per channel: the diagonal of R.
    #[must_use]
    pub fn second_moment(&self) -> Vec<f64> {
        (0..self.in_features)
            .map(|i| self.autocorrelation[packed_offset(self.in_features, i)])
            .collect()
    }
}
