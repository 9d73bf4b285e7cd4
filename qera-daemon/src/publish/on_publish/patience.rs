//! How long a run that was told to end waits for its command, all attempts together.

use core::time::Duration;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::disk::clock::{now, since};

/// Whether the run waits for its end, and since when. The thread that runs the command and the one
/// that waits for it share this.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    begun: Arc<OnceLock<Instant>>,
    at_most: Duration,
}

impl Patience {
    /// The patience of a run that nobody has told to end yet.
    pub(crate) fn of(at_most: Duration) -> Self {
        Self {
            begun: Arc::default(),
            at_most,
        }
    }

    /// Notes that the run waits for its end from now on.
    pub(crate) fn begin(&self) {
        self.begun.get_or_init(now);
    }

    /// The time that is left; `None` while the run is not waiting for its end.
    pub(crate) fn left(&self) -> Option<Duration> {
        let begun = self.begun.get()?;
        Some(self.at_most.saturating_sub(since(*begun)))
    }

    /// Whether no time is left.
    pub(crate) fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// The longest time that the run waits.
    pub(crate) const fn at_most(&self) -> Duration {
        self.at_most
    }
}
