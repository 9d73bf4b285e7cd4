//! What solvers and the feeder tell the publisher, and what it answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::channel::Sender;
use crate::error::Fatal;
use crate::judge::progress::LayerSummary;
use crate::solve::solution::SolvedSite;
use crate::state::journal::Gathered;

/// A message of a solver or of the feeder to the publisher.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The outcome of a site's job.
    Site(SiteOutcome),
    /// A site could not be solved.
    Failed(Fatal),
    /// Every site was solved cold: publish a generation.
    Drain(Drain),
}

/// The outcome of a site's job.
#[derive(Debug)]
pub(crate) struct SiteOutcome {
    /// Index of the site.
    pub(crate) site: usize,
    /// The shards that the site's statistics held.
    pub(crate) gathered: Arc<Gathered>,
    /// The outcomes of the site's layers; none where the corrections were only scored.
    pub(crate) solved: SolvedSite,
    /// The progress of the layers, where the job was a solve point.
    pub(crate) summaries: Option<Vec<LayerSummary>>,
}

/// The order to publish after every site was solved cold.
#[derive(Debug)]
pub(crate) struct Drain {
    /// The shards that the sites were solved from.
    pub(crate) gathered: Gathered,
    /// The shards that a signal left unread.
    pub(crate) unread: UnreadShards,
    /// The sender that takes the answer.
    pub(crate) reply: Sender<Drained>,
}

/// Shards that a signal left unread.
#[derive(Debug, Default)]
pub(crate) struct UnreadShards {
    /// The number of shards.
    pub(crate) shards: usize,
    /// The sites that they would feed.
    pub(crate) sites: BTreeSet<usize>,
}

/// What became of the order to publish.
#[derive(Debug)]
pub(crate) enum Drained {
    /// A generation was published.
    Published,
    /// A generation did not pass its check, and was removed.
    Rejected,
    /// Nothing was published, because no layer has a solution.
    Nothing,
    /// Nothing was published: layers wait for more rows before they are rounded, and a base needs
    /// W~ of all layers.
    Gathering,
    /// Nothing was published: a signal left files unread that have rows for a layer, which would
    /// have been published as zeros.
    CutOff,
    /// A stage failed.
    Failed,
}
