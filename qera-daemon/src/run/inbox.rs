//! The watched folder: what lists it, and what wakes the thread that waits for shards.

use std::path::Path;

use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::settings::Settings;
use crate::source::intake::Intake;
use crate::source::watch::Watcher;

/// The watched folder.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The files that are there, and those that were taken already.
    pub(crate) intake: Intake,
    /// Wakes the thread that waits; `None` for `--once`.
    pub(crate) watcher: Option<Watcher>,
}

impl Inbox {
    /// Begins to watch, if more is waited for.
    pub(crate) fn open(settings: &Settings, watch: &Path, reporter: &Reporter) -> Self {
        let live = !settings.convergence.is_once();
        let watcher = live.then(|| {
            Watcher::start(watch, settings.source.mode, |message| {
                reporter.say(&Event::Warning {
                    subject: "watched folder",
                    message,
                });
            })
        });
        Self {
            intake: Intake::new(watch, live),
            watcher,
        }
    }

    /// Forgets what was taken.
    pub(crate) fn forget(&mut self) {
        self.intake = Intake::new(self.intake.folder(), self.watcher.is_some());
    }
}
