//! How a run ends: its last words and its exit code.

use std::path::Path;

use crate::disk::presence::exists;
use crate::error::Fatal;
use crate::exit::Exit;
use crate::observe::event::Event;
use crate::observe::reporter::Reporter;
use crate::pipeline::outcome::Drained;
use crate::settings::Settings;

/// How a run has ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// What became of the last generation; `None` where there was nothing new to publish.
    pub(crate) drained: Option<Drained>,
    /// Number of shards in the statistics.
    pub(crate) shards: usize,
    /// Number of shards refused in this run.
    pub(crate) refused: usize,
    /// Names of what is in the folder and the disk did not give to a live run.
    pub(crate) left_behind: Vec<String>,
    /// Whether a signal ended a wait for room.
    pub(crate) was_full: bool,
    /// Number of layers that cannot be solved.
    pub(crate) failed: usize,
}

impl Ending {
    /// Says the last words, and returns the exit code.
    ///
    /// # Errors
    /// [`Fatal`] where `--once` leaves nothing to use, and where the last generation did not pass
    /// its check.
    pub(crate) fn exit(
        &self,
        settings: &Settings,
        watch: &Path,
        reporter: &Reporter,
    ) -> Result<Exit, Fatal> {
        let once = settings.convergence.is_once();
        match &self.drained {
            Some(Drained::Rejected) => return Err(Fatal::Rejected),
            Some(Drained::CutOff) if once => return Err(Fatal::Interrupted),
            Some(Drained::CutOff) => reporter.say(&Event::Warning {
                subject: "last generation",
                message: Fatal::Interrupted.to_string(),
            }),
            _ if self.shards == 0 && once => return Err(nothing_usable(watch, self.refused)),
            None if settings.weights.checkpoint.is_some() && self.shards > 0 => {
                let current = settings.publish.out.join("current");
                reporter.say(&match exists(&current)? {
                    true => Event::NothingNew {
                        shards: self.shards,
                    },
                    false => Event::Warning {
                        subject: "current",
                        message: format!(
                            "{} leads nowhere: the next start publishes again",
                            current.display()
                        ),
                    },
                });
            }
            None => reporter.say(&Event::Gathered {
                state: settings.state.display().to_string(),
                shards: self.shards,
            }),
            Some(_) => {}
        }
        Ok(if once && self.refused + self.failed > 0 {
            Exit::Quarantined
        } else {
            left_behind(&self.left_behind, self.was_full, reporter)
        })
    }
}

/// Names that are said of what is left.
const SAID: usize = 8;

/// How a live run ends that leaves something, because the disk did not give it or had no room.
pub(crate) fn left_behind(names: &[String], was_full: bool, reporter: &Reporter) -> Exit {
    let warn = |subject, message| reporter.say(&Event::Warning { subject, message });
    if was_full {
        let message = "is full: what waited for room is left for the next start";
        warn("disk", message.into());
    }
    if !names.is_empty() {
        let first = names.get(..SAID).unwrap_or(names).join(", ");
        let message = format!(
            "left for the next start, because the disk did not give it to this one: {first} ({} in all)",
            names.len()
        );
        warn("watched folder", message);
    }
    match was_full || !names.is_empty() {
        true => Exit::Quarantined,
        false => Exit::Done,
    }
}

/// The error that the folder has nothing to begin with, or that nothing of it was accepted.
pub(crate) fn nothing_usable(watch: &Path, refused: usize) -> Fatal {
    Fatal::NothingUsable {
        folder: watch.to_path_buf(),
        refused,
    }
}
