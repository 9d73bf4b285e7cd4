//! A site as its worker holds it, and what of it is with a solver at the moment.

use std::sync::Arc;

use qera_gpu::Triangle;

use crate::calibrate::device_sums::DeviceSums;
use crate::calibrate::row_room::RowRoom;
use crate::calibrate::site::{FoldError, FoldTools, SiteStatistics};
use crate::channel::{Receiver, Sender, bounded};
use crate::judge::progress::SiteProgress;
use crate::pipeline::stage_end::StageEnd;
use crate::source::rows::Batch;
use crate::source::sums::SummedRows;

/// A site as its worker holds it.
pub(crate) struct Slot {
    /// R in them is whole after [`complete`](Slot::complete).
    pub(crate) statistics: Arc<SiteStatistics>,
    /// The rows that R lacks while a device sums them.
    pub(crate) device: DeviceSums<Triangle>,
    pub(crate) progress: Progress,
    /// The next solve point of the site's progress. It is kept here as well, because the progress
    /// may be with a solver.
    pub(crate) next_point: u64,
    /// Whether the site's progress says that rows are left out.
    pub(crate) closed: bool,
    /// Rows at the last cold solve of this run.
    pub(crate) rows_at_cold_solve: u64,
    /// Ends when the solver has given the statistics back.
    pub(crate) lent: Option<Receiver<()>>,
}

impl Slot {
    /// Folds rows of the site, or of those of a closed site a share.
    ///
    /// # Errors
    /// [`FoldError`].
    pub(crate) fn fold_rows(
        &mut self,
        rows: Batch,
        room: RowRoom,
        share: Option<f64>,
        tools: &mut FoldTools<'_>,
    ) -> Result<(), FoldError> {
        // Nobody else has them now.
        let statistics = Arc::make_mut(&mut self.statistics);
        statistics.keep_within(room);
        let Some(share) = share else {
            return self.device.fold(statistics, rows, tools);
        };
        self.device.leave(statistics, tools);
        statistics.follow(&rows, share, tools)
    }

    /// Folds a sum over rows of the site, or follows that of a closed one.
    ///
    /// # Errors
    /// [`FoldError`].
    pub(crate) fn fold_sum(
        &mut self,
        sum: &SummedRows,
        room: RowRoom,
        share: Option<f64>,
        tools: &mut FoldTools<'_>,
    ) -> Result<(), FoldError> {
        let statistics = Arc::make_mut(&mut self.statistics);
        statistics.keep_within(room);
        self.device.leave(statistics, tools);
        match share {
            None => statistics.fold_sum(sum),
            Some(share) => statistics.follow_sum(sum, share),
        }
    }

    /// Makes R whole: before somebody reads it.
    pub(crate) fn complete(&mut self, tools: &mut FoldTools<'_>) {
        if !self.device.is_complete() {
            let statistics = Arc::make_mut(&mut self.statistics);
            self.device.complete(statistics, tools);
        }
    }

    /// Lends the statistics to a solve; R must be whole. Where all rows came in one shard of two
    /// dimensions, the copy that is lent has them cut into blocks.
    pub(crate) fn lend(&mut self) -> Lent {
        debug_assert!(self.device.is_complete(), "R lacks rows");
        let (back, lent) = bounded(0);
        self.lent = Some(lent);
        let mut statistics = Arc::clone(&self.statistics);
        if statistics.window.unfinished() {
            Arc::make_mut(&mut statistics).window.finish();
        }
        Lent {
            statistics,
            _back: back,
        }
    }

    /// Waits until the solver has given the statistics back.
    pub(crate) fn have_back(&mut self) {
        if let Some(lent) = self.lent.take() {
            let _ = lent.recv();
        }
    }
}

pub(crate) enum Progress {
    /// There is no checkpoint, so that nothing is ever solved.
    None,
    Here(SiteProgress),
    /// The progress is with a solver, which will send it back.
    Out(Receiver<SiteProgress>),
}

impl Progress {
    /// The progress; waits for it where a solver has it.
    pub(crate) fn here(&mut self) -> Result<Option<&mut SiteProgress>, StageEnd> {
        if let Self::Out(back) = self {
            *self = Self::Here(back.recv().map_err(|_| StageEnd::Neighbour)?);
        }
        Ok(match self {
            Self::Here(progress) => Some(progress),
            _ => None,
        })
    }
}

/// Statistics that are lent to a solver. The worker folds no row of the site until they are back,
/// so that R exists once.
pub(crate) struct Lent {
    pub(crate) statistics: Arc<SiteStatistics>,
    /// Dropped after the statistics, so that the worker knows they are back.
    _back: Sender<()>,
}
