//! A run that was told to end waits for its command a while, all attempts together.

use core::time::Duration;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::disk::clock::{now, since};

/// Whether the run waits, and since when; shared by the thread that runs the command and the one
/// that waits for it.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    begun: Arc<OnceLock<Instant>>,
    at_most: Duration,
}

impl Patience {
    /// Of a run that nobody has told to end yet.
    pub(crate) fn of(at_most: Duration) -> Self {
        Self {
            begun: Arc::default(),
            at_most,
        }
    }

    /// The run waits from now on.
    pub(crate) fn begin(&self) {
        self.begun.get_or_init(now);
    }

    /// What is left of its patience; `None` as long as it has not begun to wait.
    pub(crate) fn left(&self) -> Option<Duration> {
        let begun = self.begun.get()?;
        Some(self.at_most.saturating_sub(since(*begun)))
    }

    /// Whether its patience is at an end.
    pub(crate) fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// What it waits at most.
    pub(crate) const fn at_most(&self) -> Duration {
        self.at_most
    }
}
