//! Everything that is gathered of one site: R (unless the method does without it), mean and
//! deviations of x, mean |x| (plain, and the reference's maximum of batch means), the held-out
//! window, and the rows kept aside for scoring.

use std::sync::Arc;

use qera_core::packed::packed_offset;
use qera_core::rows::{Rows, ShapeError};
use qera_core::statistics::{BatchMaxMeanAbs, MeanAbs, Moments, StatisticError};

use crate::calibrate::aside::Aside;
use crate::calibrate::window::Window;
use crate::host::compute::Compute;
use crate::host::kernels::rank_update::Scratch;
use crate::host::second_moment::channels::ChannelMoments;
use crate::host::second_moment::massive::entry_errors;
use crate::host::second_moment::{SecondMoment, SecondMomentKind};
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
    /// What stands for R, the mean over `rows`.
    pub(crate) second_moment: SecondMoment,
    /// Mean of |x| per channel.
    pub mean_abs: Vec<f64>,
    /// Maximum over batches of the batch's mean of |x|.
    pub batch_max: Vec<f64>,
    /// Held-out rows.
    pub(crate) window: Window,
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
    /// Nothing seen yet. `kind` says how much of R is gathered, `scored_share` how many rows are
    /// kept aside (`aside::scored_share`).
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
            batch_weight: 0.0,
        }
    }

    /// By somebody else's word: E[x^2] of so many rows, none of which is here.
    #[must_use]
    pub(crate) fn given(mean_squares: Vec<f64>, rows: u64) -> Self {
        let in_features = mean_squares.len();
        Self {
            second_moment: SecondMoment::given(mean_squares),
            rows,
            ..Self::new(in_features, SecondMomentKind::Given, 0.0)
        }
    }

    /// Nothing seen yet; the whole of R is gathered and nothing is kept aside.
    #[must_use]
    pub fn whole(in_features: usize) -> Self {
        Self::new(in_features, SecondMomentKind::Packed, 0.0)
    }

    /// Statistics gathered elsewhere: R over so many rows, upper triangle by rows, and no row of
    /// them.
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
            ..Self::whole(in_features)
        }
    }

    /// The places in the stream of the blocks held out.
    #[must_use]
    pub fn held_out_blocks(&self) -> Vec<u64> {
        self.window.blocks().iter().map(|b| b.number).collect()
    }

    /// Rows that came, folded or not.
    #[must_use]
    pub(crate) const fn rows_seen(&self) -> u64 {
        self.rows + self.rows_skipped
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
        let (rows, seen) = (batch.stored(), self.rows);
        // First, because they say which channels f32 products are not enough for.
        self.fold_channels(batch)?;
        self.second_moment.fold(compute, rows, seen, scratch)?;
        let aside = &mut self.aside;
        self.window.offer(batch, |block| aside.offer(block));
        self.rows += batch.rows() as u64;
        Ok(())
    }

    /// The statistics of single channels: rows are widened a few at a time, so that they stay in
    /// cache.
    fn fold_channels(&mut self, batch: &Batch) -> Result<(), FoldError> {
        let m = self.in_features;
        let channels = self.second_moment.channels_mut();
        let mut moments = Moments::resume(&mut channels.mean, &mut channels.m2, self.rows as f64)?;
        let mut mean_abs = MeanAbs::resume(&mut self.mean_abs, self.rows as f64)?;
        let mut batch_max = BatchMaxMeanAbs::resume(&mut self.batch_max, self.batch_weight)?;
        let mut batch_mean = vec![0.0; m];
        let mut wide = vec![0.0; WIDENED_ROWS * m];
        let mut first = 0;
        for &rows in &batch.batches {
            let mut own = MeanAbs::new(&mut batch_mean)?;
            for row in (first..first + rows).step_by(WIDENED_ROWS) {
                let count = WIDENED_ROWS.min(first + rows - row);
                let piece = &mut wide[..count * m];
                batch.stored().widen(row * m..(row + count) * m, piece);
                let piece = Rows::new(piece, m)?;
                moments.update(&piece)?;
                own.update(&piece)?;
            }
            mean_abs.merge(&own)?;
            batch_max.take_batch(&own)?;
            first += rows;
        }
        self.batch_weight = batch_max.weight();
        Ok(())
    }

    /// E[x^2] per channel, whether the whole of R is gathered or not.
    #[must_use]
    pub(crate) fn mean_squares(&self) -> Vec<f64> {
        self.second_moment.mean_squares(self.rows)
    }

    /// The diagonal of R.
    #[must_use]
    pub(crate) fn diagonal(&self) -> Vec<f64> {
        self.second_moment.diagonal(self.rows)
    }

    /// How far the diagonal elements of R may be off, absolutely; none where R is not gathered.
    #[must_use]
    pub(crate) fn diagonal_errors(&self) -> Vec<f64> {
        match &self.second_moment {
            SecondMoment::Packed { channels, .. } => entry_errors(channels, self.rows as f64),
            SecondMoment::Diagonal(_) | SecondMoment::Given(_) => Vec::new(),
        }
    }
}
