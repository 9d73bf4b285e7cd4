//! What is known of a run when it is planned.

use crate::calibrate::row_room::RowRoom;
use crate::settings::Settings;
use crate::source::admission::Admitted;
use crate::weights::Weights;
use crate::weights::frozen::record::RoundingRecord;
use crate::weights::layers::Layer;
use crate::weights::sites::Sites;

/// What is known of a run when it is planned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlannedRun<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The model; none where statistics are only gathered.
    pub(crate) weights: Option<&'a Weights>,
    /// The selected layers.
    pub(crate) layers: &'a [Layer],
    /// For each layer the record of its W~, where it was rounded before.
    pub(crate) made: &'a [Option<RoundingRecord>],
    /// The sites.
    pub(crate) sites: &'a Sites,
    /// Shards that are still to be folded.
    pub(crate) shards: &'a [Admitted],
    /// Shards that are there and were folded before. Future shards are taken to be like them.
    pub(crate) held: &'a [Admitted],
    /// The room for rows held out and kept aside.
    pub(crate) room: RowRoom,
    /// When sites are solved.
    pub(crate) solving: Solving,
    /// Whether the run begins with rows.
    pub(crate) start: Start,
}

/// When sites are solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Solving {
    /// At solve points, while rows are folded.
    WhileFolding,
    /// Once every row is folded, or never.
    AtTheEnd,
}

impl Solving {
    /// When a run with these settings solves.
    #[must_use]
    pub(crate) fn of(settings: &Settings) -> Self {
        if settings.convergence.is_once() || settings.weights.checkpoint.is_none() {
            Self::AtTheEnd
        } else {
            Self::WhileFolding
        }
    }

    /// Whether solving and folding happen at the same time.
    #[must_use]
    pub(crate) const fn is_live(self) -> bool {
        matches!(self, Self::WhileFolding)
    }
}

/// Where a run's rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The rows come from the shards that are there.
    Anew,
    /// Also from the shards of earlier runs.
    Continued,
    /// The run has no rows at all: there is only an imatrix.
    Never,
}
