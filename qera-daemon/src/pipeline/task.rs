//! What the feeder asks of a worker, and what a worker asks of a solver.

use std::path::PathBuf;
use std::sync::Arc;

use crate::calibrate::blocks::Block;
use crate::calibrate::row_room::RowRoom;
use crate::channel::Sender;
use crate::error::Fatal;
use crate::judge::progress::SiteProgress;
use crate::pipeline::flight::Ticket;
use crate::pipeline::slot::Lent;
use crate::source::rows::{Batch, Shard};
use crate::source::sums::SummedRows;
use crate::state::journal::Gathered;
use crate::state::snapshot::SavedSite;

/// What the feeder asks of a worker.
pub(crate) enum Task {
    /// Fold rows, and sums over rows, of one shard.
    Rows(RowsTask),
    /// Solve every site that has rows newer than its last cold solution. The sender is dropped when
    /// that is done.
    Solve(Arc<Gathered>, Sender<()>),
    /// Write every site into a snapshot.
    Save(SaveTask),
}

/// What a worker is asked to fold.
pub(crate) struct RowsTask {
    /// The shards that the statistics hold once this is folded.
    pub(crate) gathered: Arc<Gathered>,
    /// How many rows each known input may hold out and keep aside.
    pub(crate) room: RowRoom,
    /// What the shard has for the worker's sites.
    pub(crate) part: ShardPart,
    /// Holds the shard's room in memory, which is free when the last worker has folded its part.
    pub(crate) ticket: Arc<Ticket>,
}

/// What a shard has for the sites of a worker.
#[derive(Debug, Default)]
pub(crate) struct ShardPart {
    /// The rows of these sites.
    pub(crate) rows: Vec<Batch>,
    /// The sums over other rows of these sites.
    pub(crate) sums: Vec<SummedRows>,
}

impl ShardPart {
    /// All rows and sums of a shard.
    pub(crate) fn of(shard: Shard) -> Self {
        let Shard { sites, sums, .. } = shard;
        Self { rows: sites, sums }
    }
}

/// The order to write every site into a snapshot.
#[derive(Clone)]
pub(crate) struct SaveTask {
    /// The folder of the snapshot that is being made.
    pub(crate) folder: PathBuf,
    /// The keys of all sites, by index.
    pub(crate) keys: Arc<Vec<String>>,
    /// The sender that takes what was written of each site.
    pub(crate) saved: Sender<Result<SavedSite, Fatal>>,
}

/// A site to be solved.
pub(crate) struct SolveJob {
    /// Index of the site.
    pub(crate) site: usize,
    /// The shards that the site's statistics hold.
    pub(crate) gathered: Arc<Gathered>,
    /// The site's statistics, lent.
    pub(crate) lent: Lent,
    /// How it is to be solved.
    pub(crate) kind: JobKind,
}

/// How a site is to be solved.
pub(crate) enum JobKind {
    /// At a solve point.
    Point(PointJob),
    /// Solve cold. The sender lives until that is done.
    Cold { _done: Sender<()> },
}

/// A solve point. The site's progress goes with the job and comes back.
pub(crate) struct PointJob {
    /// What the site carries from one solve point to the next.
    pub(crate) progress: SiteProgress,
    /// Rows newer than every correction in `progress`.
    pub(crate) newer: Vec<Block>,
    /// Whether R has enough new rows for a solve; otherwise the corrections are only scored.
    pub(crate) solves: bool,
    /// Whether the worker waits, so that the evidence may close or re-open the site.
    pub(crate) may_change_folding: bool,
    /// The sender that takes the progress back.
    pub(crate) back: Sender<SiteProgress>,
}
