//! A site in the hands of its worker, and what of it is with a solver.

use std::sync::Arc;

use crate::calibrate::site::SiteStatistics;
use crate::channel::{Receiver, Sender, bounded};
use crate::judge::progress::SiteProgress;
use crate::pipeline::stage_end::StageEnd;

/// A site in the hands of its worker.
pub(crate) struct Slot {
    pub(crate) statistics: Arc<SiteStatistics>,
    pub(crate) progress: Progress,
    /// That of the progress, wherever it is.
    pub(crate) next_point: u64,
    /// Whether the progress says that rows are left out.
    pub(crate) closed: bool,
    /// Rows at the last cold solve of this run.
    pub(crate) rows_at_cold_solve: u64,
    /// Ends when the solver has given the statistics back.
    pub(crate) lent: Option<Receiver<()>>,
}

impl Slot {
    /// The statistics as a solve sees them: what a lone 2-D shard gave is cut into blocks; R is
    /// shared.
    pub(crate) fn lend(&mut self) -> Lent {
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

    /// Waits for the solver that has the statistics.
    pub(crate) fn have_back(&mut self) {
        if let Some(lent) = self.lent.take() {
            let _ = lent.recv();
        }
    }
}

pub(crate) enum Progress {
    /// There is no checkpoint: nothing is ever solved.
    None,
    Here(SiteProgress),
    /// With a solver.
    Out(Receiver<SiteProgress>),
}

impl Progress {
    /// Waits for the solver, where there is one.
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

/// Statistics in the hands of a solver. The worker folds no row of the site until they are back: R
/// exists once.
pub(crate) struct Lent {
    pub(crate) statistics: Arc<SiteStatistics>,
    /// Dropped after them.
    _back: Sender<()>,
}
