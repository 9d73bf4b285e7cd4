//! What solvers and the feeder tell the publisher, and what it answers.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::channel::Sender;
use crate::error::Fatal;
use crate::judge::progress::LayerSummary;
use crate::solve::solution::SolvedSite;
use crate::state::journal::Gathered;

/// What solvers and feeder tell the publisher.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// What came of a site.
    Site(SiteOutcome),
    /// A site could not be solved.
    Failed(Fatal),
    /// Every site was solved cold: publish.
    Drain(Drain),
}

/// What came of a site's job.
#[derive(Debug)]
pub(crate) struct SiteOutcome {
    /// Index of the site.
    pub(crate) site: usize,
    /// The shards that its statistics held.
    pub(crate) gathered: Arc<Gathered>,
    /// Of its layers; none where the corrections were only scored.
    pub(crate) solved: SolvedSite,
    /// At a solve point: what is to be told of its layers' progress.
    pub(crate) summaries: Option<Vec<LayerSummary>>,
}

/// The order to publish what was solved cold.
#[derive(Debug)]
pub(crate) struct Drain {
    /// The shards that it was solved from.
    pub(crate) gathered: Gathered,
    /// What a signal left unread.
    pub(crate) unread: UnreadShards,
    /// Takes the answer.
    pub(crate) reply: Sender<Drained>,
}

/// Shards that a signal left unread.
#[derive(Debug, Default)]
pub(crate) struct UnreadShards {
    /// How many.
    pub(crate) shards: usize,
    /// Sites that they would feed.
    pub(crate) sites: BTreeSet<usize>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Drained {
    /// A generation.
    Published,
    /// A generation that did not pass its check, and is gone.
    Rejected,
    /// No layer has a solution.
    Nothing,
    /// Layers wait for more rows before they are rounded, and a base is W~ of all.
    Gathering,
    /// A signal kept a layer from rows that unread files have: it would be published as zeros.
    CutOff,
    /// A stage failed.
    Failed,
}
