//! A site as its worker holds it, and what of it is with a solver at the moment.

use std::sync::Arc;

use crate::calibrate::site::SiteStatistics;
use crate::channel::{Receiver, Sender, bounded};
use crate::judge::progress::SiteProgress;
use crate::pipeline::stage_end::StageEnd;

/// A site as its worker holds it.
pub(crate) struct Slot {
    pub(crate) statistics: Arc<SiteStatistics>,
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
    /// Lends the statistics to a solve. Rows of a lone 2-D shard are cut into blocks for it; R is
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
