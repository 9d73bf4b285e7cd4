//! One run of the daemon on a disk in memory, its threads one at a time, its time its own.

use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::disk::clock;
use crate::disk::simulated::{Disk, Image};
use crate::error::Fatal;
use crate::exit::Exit;
use crate::trials::small_run::{run_quietly, settings};
use crate::trials::turns::{Turns, place};

/// How long a live run is left alone before it is ended.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// A live run lists its folder, and publishes, this often.
const LIVE: &str = "watch-mode = \"poll\"\nrescan-interval = 1\nidle-publish = 2";

/// A run.
#[derive(Debug)]
pub(super) struct OneRun {
    seed: u64,
    options: String,
    /// After how long a user does something each time; `None` for `--once`.
    pauses: Option<Vec<Duration>>,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The result of the run; `None` for a panic.
    pub(super) ended: Option<Result<Exit, Fatal>>,
    /// What users did during the run.
    pub(super) deeds: Vec<String>,
    /// What the run logged.
    pub(super) log: String,
    /// When a live run was told to end.
    pub(super) told: Option<Instant>,
    /// Whether its threads waited for each other.
    pub(super) is_stuck: bool,
}

impl OneRun {
    /// A run of what is there.
    pub(super) fn to_the_end(seed: u64, more: &str) -> Self {
        Self {
            seed,
            options: format!("once = true\n{more}"),
            pauses: None,
        }
    }

    /// A run that watches the folder.
    pub(super) fn live(seed: u64, more: &str, pauses: Vec<Duration>) -> Self {
        Self {
            seed,
            options: format!("{LIVE}\n{more}"),
            pauses: Some(pauses),
        }
    }

    /// Runs; a panic is an end as well.
    pub(super) fn on(
        &self,
        disk: &Arc<Disk>,
        mut act: impl FnMut(&mut Image) -> String + Send,
    ) -> Ended {
        let begun = Turns::begin(self.seed);
        let stopping = Arc::new(AtomicBool::new(false));
        let (mut deeds, mut told) = (Vec::new(), None);
        let log: Arc<Mutex<String>> = Arc::default();
        let ended = std::thread::scope(|scope| {
            let user = self.pauses.as_ref().map(|pauses| {
                let (place, end) = place();
                let (stopping, deeds) = (Arc::clone(&stopping), &mut deeds);
                let told = &mut told;
                scope.spawn(move || {
                    let _turns = place.take();
                    for &pause in pauses {
                        clock::pause(pause);
                        deeds.extend(disk.change(&mut act));
                    }
                    clock::pause(LEFT_ALONE);
                    *told = Some(clock::now());
                    stopping.store(true, Ordering::SeqCst);
                });
                end
            });
            let run = || {
                let settings = settings(disk.root(), &self.options)?;
                run_quietly(&settings, Arc::clone(&stopping), Arc::clone(&log))
            };
            let ended = catch_unwind(AssertUnwindSafe(run));
            drop(user);
            ended.ok()
        });
        Ended {
            ended,
            deeds,
            log: core::mem::take(&mut *log.lock().unwrap()),
            told,
            is_stuck: begun.was_stuck(),
        }
    }
}
