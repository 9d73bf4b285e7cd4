//! The clocks. A simulated run (`trials/turns/`) has a time of its own.

use core::time::Duration;
use std::time::Instant;

use cpu_time::{ProcessTime, ThreadTime};

#[cfg(test)]
use crate::trials::turns;

/// The present moment.
#[must_use]
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = turns::now() {
        return now;
    }
    Instant::now()
}

/// Waits for this long.
pub(crate) fn pause(time: Duration) {
    #[cfg(test)]
    if turns::pause(time) {
        return;
    }
    std::thread::sleep(time);
}

/// The time since that moment.
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
