//! The clocks.

use core::time::Duration;
use std::time::Instant;

use cpu_time::{ProcessTime, ThreadTime};

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

/// CPU time that this thread has taken so far; zero where the system does not say.
#[must_use]
pub(crate) fn thread_cpu() -> Duration {
    ThreadTime::try_now().map_or(Duration::ZERO, |time| time.as_duration())
}

/// CPU time that all threads of this process have taken so far; zero where the system does not say.
#[must_use]
pub(crate) fn process_cpu() -> Duration {
    ProcessTime::try_now().map_or(Duration::ZERO, |time| time.as_duration())
}
