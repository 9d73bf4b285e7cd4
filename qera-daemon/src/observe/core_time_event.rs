//! The event at the end of a run that says what the CPU time went into.

use std::fmt;

use serde::Serialize;

use crate::disk::clock;
use crate::host::core_time::{SecondsByKind, WorkKind};

/// Kinds of work that took less than this many seconds are left out of the text.
const SHOWN: f64 = 0.005;

/// CPU seconds of all threads of the process, by kind of work.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CoreTimeSpent {
    /// CPU seconds since the process began.
    cpu_s: f64,
    /// The part of them that went into each kind of work. The rest went into none of these.
    by_kind_s: SecondsByKind,
}

impl CoreTimeSpent {
    /// The seconds until now.
    pub(crate) fn so_far() -> Self {
        // Read in this order, so that the kinds together have no more than the process.
        let by_kind_s = SecondsByKind::spent();
        Self {
            cpu_s: clock::process_cpu().as_secs_f64(),
            by_kind_s,
        }
    }
}

impl fmt::Display for CoreTimeSpent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {:.2} s", self.cpu_s)?;
        let kinds = WorkKind::ALL.map(|kind| Shown {
            name: kind.name(),
            seconds: self.by_kind_s.of(kind),
        });
        let other = Shown {
            name: "other",
            seconds: self.cpu_s - self.by_kind_s.sum(),
        };
        let shown = kinds.into_iter().chain([other]);
        let shown = shown.filter(|part| part.seconds >= SHOWN);
        for (index, part) in shown.enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            write!(f, "{before}{} {:.2}", part.name, part.seconds)?;
        }
        Ok(())
    }
}

/// A part of the text.
struct Shown {
    name: &'static str,
    seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::event::Event;

    #[test]
    fn the_cpu_is_told() {
        let by_kind_s = SecondsByKind::made_up(|kind| match kind {
            WorkKind::Accumulate => 2.5,
            WorkKind::Subspace => 1.25,
            WorkKind::Round => 0.0025,
            _ => 0.0,
        });
        let spent = CoreTimeSpent {
            cpu_s: 4.0,
            by_kind_s,
        };
        let event = Event::CoreTime(spent);
        assert_eq!(
            event.to_string(),
            "CPU 4.00 s: accumulate 2.50, subspace 1.25, other 0.25"
        );
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            r#"{"event":"core-time","cpu_s":4.0,"by_kind_s":{"read":0.0,"check":0.0,"hash":0.0,"accumulate":2.5,"choose":0.0,"quantize":0.0,"subspace":1.25,"measure":0.0,"round":0.0025,"write":0.0}}"#
        );
    }
}
