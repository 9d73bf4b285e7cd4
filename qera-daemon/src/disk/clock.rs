//! The clock.

use core::time::Duration;
use std::time::Instant;

/// Now.
#[must_use]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Since then.
#[must_use]
pub(crate) fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}
