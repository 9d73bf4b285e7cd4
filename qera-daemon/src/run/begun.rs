//! A run whose sites are fixed: they are in the state, and there is something to begin with.

use crate::calibrate::imatrix::GivenStatistics;
use crate::publish::target::Target;
use crate::run::inbox::Inbox;
use crate::run::prepared::Prepared;
use crate::state::StateFolder;

/// A run whose sites are fixed and durable.
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    /// Sites, shards and plan.
    pub(crate) prepared: Prepared<'a>,
    /// The watched folder.
    pub(crate) inbox: Inbox,
    /// The state, locked.
    pub(crate) state: StateFolder,
    /// The target of generations; `None` without a checkpoint.
    pub(crate) target: Option<Target<'a>>,
    /// The imatrix that stands in for rows.
    pub(crate) given: Option<GivenStatistics>,
}
