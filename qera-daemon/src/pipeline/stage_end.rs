//! Why a stage ends before its channel is closed.

use crate::error::Fatal;

/// Why a stage ends before its channel is closed.
#[derive(Debug)]
pub(crate) enum StageEnd {
    /// A neighbour ended early; the caller reports why.
    Neighbour,
    /// The run fails here.
    Fatal(Fatal),
}

impl From<Fatal> for StageEnd {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}
