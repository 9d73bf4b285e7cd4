//! `status.json`: what a daemon is doing, for whoever asks while it runs or after it ended.

use core::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::disk::lock;
use crate::disk::presence::exists;
use crate::error::Fatal;
use crate::judge::evidence::Evidence;
use crate::observe::notify_events::ServerStatus;
use crate::observe::reporter::printable;
use crate::observe::run_events::GenerationRejected;
use crate::observe::waiting::WaitingForConvergence;

/// A file of the state that exists while a run waits for room on a full disk.
pub(crate) const DISK_FULL: &str = "disk-full";

/// What `status` shows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Whether a daemon holds the state; set when the file is read.
    #[serde(default)]
    pub(crate) running: bool,
    /// Whether the daemon waits for room on a full disk; set when the file is read.
    #[serde(default)]
    pub(crate) disk_full: bool,
    /// Process id of the daemon that wrote it.
    pub(crate) pid: u32,
    /// What the daemon is doing.
    pub(crate) phase: Phase,
    /// With `--until-converged`, while it is idle: what it waits for.
    #[serde(default)]
    pub(crate) waiting: Option<WaitingForConvergence>,
    /// The watched folder.
    pub(crate) watch: Option<String>,
    /// The output folder, where a checkpoint was given.
    pub(crate) out: Option<String>,
    /// Number of shards folded.
    pub(crate) shards: usize,
    /// Number of shards whose content had come before.
    pub(crate) duplicates: usize,
    /// Number of files that are not complete yet, or locked by their producer.
    pub(crate) incomplete: usize,
    /// Number of shards set aside since the daemon was started.
    pub(crate) quarantined: usize,
    /// The reasons of the first hundred of these shards.
    pub(crate) reasons: Vec<String>,
    /// Number of shards that were gone before a snapshot held them.
    pub(crate) lost: usize,
    /// The latest generation published.
    pub(crate) generation: Option<u64>,
    /// The latest generation, if it did not pass its check.
    #[serde(default)]
    pub(crate) rejected: Option<GenerationRejected>,
    /// The servers of `--notify`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) servers: Vec<ServerStatus>,
    /// The CUDA device, where one is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<DeviceStatus>,
    /// Seconds of computing since the daemon was started.
    pub(crate) work: Work,
    /// Every layer.
    pub(crate) layers: Vec<LayerStatus>,
}

/// A CUDA device that computes beside the CPU.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct DeviceStatus {
    /// As its driver calls it, its memory and its compute capability.
    pub(crate) name: String,
    /// With which call it was lost, so that the CPU goes on alone.
    pub(crate) lost: Option<String>,
}

impl DeviceStatus {
    fn line(&self) -> String {
        let name = &self.name;
        match &self.lost {
            None => format!("computing on {name} beside the CPU"),
            Some(why) => format!("{name} was lost, the CPU goes on alone: {why}"),
        }
    }
}

/// What a daemon is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Phase {
    /// No shard has come yet that says which sites there are.
    #[serde(rename = "waiting for the first shard")]
    WaitingForTheFirstShard,
    /// Shards are being taken in.
    Folding,
    /// Everything in the folder is folded and published.
    Idle,
    /// It has ended.
    #[default]
    Stopped,
}

impl Phase {
    /// The phase's name in the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::WaitingForTheFirstShard => "waiting for the first shard",
            Self::Folding => "folding",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
        }
    }
}

/// The standing of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Standing {
    /// No row of its input has come.
    #[default]
    Starved,
    /// Too few rows have come for it to be solved.
    Waiting,
    /// An imatrix stands in for its rows.
    Imatrix,
    /// It waits for more rows before it is rounded.
    Gathering,
    /// It has a correction.
    Solved,
    /// It has converged: more rows no longer help.
    Converged,
    /// It has converged, and rows of its input are left out.
    Closed,
    /// It was closed, has drifted, and has not converged since.
    Reopened,
    /// It cannot be solved from the rows that came.
    Failed,
    /// There is no checkpoint, so that rows are only gathered.
    Gathered,
}

impl Standing {
    /// The standing's name in the file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Starved => "starved",
            Self::Waiting => "waiting",
            Self::Imatrix => "imatrix",
            Self::Gathering => "gathering",
            Self::Solved => "solved",
            Self::Converged => "converged",
            Self::Closed => "closed",
            Self::Reopened => "reopened",
            Self::Failed => "failed",
            Self::Gathered => "gathered",
        }
    }
}

/// Seconds of computing, by purpose.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Work {
    /// Seconds spent on folding rows.
    pub(crate) accumulate: f64,
    /// Seconds spent on scoring corrections on new rows.
    pub(crate) score: f64,
    /// Seconds spent on solving, with the choice of the shrinkage.
    pub(crate) solve: f64,
    /// Number of solve points at which a site was only scored, because no layer could gain by a
    /// solve.
    #[serde(default)]
    pub(crate) spared: u64,
}

/// The status of one layer, or of one site where there is no checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LayerStatus {
    /// Module path.
    pub(crate) name: String,
    /// The layer's standing.
    pub(crate) status: Standing,
    /// Number of rows folded.
    pub(crate) rows: u64,
    /// Number of rows left out while its site was closed.
    #[serde(default)]
    pub(crate) rows_skipped: u64,
    /// Number of rows that the published correction was solved from.
    pub(crate) rows_solved: u64,
    /// The number of rows at which it will be rounded, while it is not.
    #[serde(default)]
    pub(crate) rounds_at: Option<u64>,
    /// Output error relative to the output's power, without correction.
    pub(crate) error_without: Option<f64>,
    /// The relative output error with the latest correction; `None` where nothing was corrected.
    pub(crate) error_with: Option<f64>,
    /// On the rows of the window, where a sketch stood for R: without correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) window_error_without: Option<f64>,
    /// The same with the latest correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) window_error_with: Option<f64>,
    /// How the earlier correction did on new rows, at the latest solve point.
    pub(crate) evidence: Option<Evidence>,
}

impl Status {
    /// Reads the bytes of the file.
    ///
    /// # Errors
    /// Why the bytes are no status.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Reads a state folder's status without disturbing the daemon that holds it.
    ///
    /// # Errors
    /// [`Fatal::Io`], and [`Fatal::StateRefused`] for a file that is no status.
    pub(crate) fn read(state: &Path) -> Result<Self, Fatal> {
        let path = state.join("status.json");
        let Some(text) = disk::read_if_there(&path)? else {
            return Err(Fatal::StateRefused {
                path: state.to_path_buf(),
                reason:
                    "holds no status: no run has used this --state, or the --out that it lies in"
                        .into(),
            });
        };
        let mut status = Self::parse(&text).map_err(|e| Fatal::StateRefused {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        status.running = lock::is_held(&state.join(".lock"));
        status.disk_full = status.running && exists(&state.join(DISK_FULL))?;
        if !status.running {
            // If the daemon was killed, its last phase is no longer true.
            status.phase = Phase::Stopped;
            status.waiting = None;
        }
        Ok(status)
    }

    /// A sentence on layers that wait for rows before they are rounded.
    fn gathering(&self) -> Option<String> {
        let waits = |layer: &&LayerStatus| layer.status == Standing::Gathering;
        let layers = self.layers.iter().filter(waits);
        let lacks = |layer: &LayerStatus| Some(layer.rounds_at?.saturating_sub(layer.rows));
        let first = layers.clone().min_by_key(|layer| lacks(layer))?;
        Some(format!(
            "{} layers gather rows before they are rounded; {} has {} of {} (--round-after)",
            layers.count(),
            first.name,
            first.rows,
            first.rounds_at.unwrap_or_default()
        ))
    }

    /// The status for a person.
    #[must_use]
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |s: String| {
            let _ = writeln!(text, "{}", printable(&s));
        };
        line(if self.running {
            format!("running (pid {}), {}", self.pid, self.phase.name())
        } else {
            "not running".into()
        });
        if self.disk_full {
            line("the disk is full: the run waits for room, and tries again each second".into());
        }
        if let Some(waiting) = &self.waiting {
            line(waiting.to_string());
        }
        line(format!(
            "{} shards folded, {} duplicates, {} quarantined, {} incomplete, {} lost; {}",
            self.shards,
            self.duplicates,
            self.quarantined,
            self.incomplete,
            self.lost,
            self.generation
                .map_or("no generation yet".into(), |g| format!("generation {g}")),
        ));
        let rejected = self.rejected.as_ref().map(ToString::to_string);
        let device = self.device.as_ref().map(DeviceStatus::line);
        rejected.into_iter().chain(device).for_each(&mut line);
        for server in &self.servers {
            line(printable(&server.to_string()));
        }
        if let Some(gathering) = self.gathering() {
            line(gathering);
        }
        line(String::new());
        line(format!(
            "{:<44} {:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>7}",
            "layer", "status", "rows", "skipped", "error", "corrected", "gain", "at most", "blocks"
        ));
        let number = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.3e}"));
        let share = |x: Option<f64>| x.map_or("-".into(), |x| format!("{:.2}%", 100.0 * x));
        for layer in &self.layers {
            let evidence = layer.evidence;
            line(format!(
                "{:<44} {:<10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>9} {:>7}",
                layer.name,
                layer.status.name(),
                layer.rows,
                layer.rows_skipped,
                number(layer.error_without),
                number(layer.error_with),
                share(evidence.and_then(|e| e.gain)),
                share(evidence.and_then(|e| e.gain_upper)),
                evidence.map_or("-".into(), |e| e.blocks.to_string()),
            ));
        }
        for layer in &self.layers {
            if let Some(without) = layer.window_error_without {
                line(format!(
                    "{}: from a sketch; on the rows of the window {} -> {}",
                    layer.name,
                    number(Some(without)),
                    number(layer.window_error_with)
                ));
            }
        }
        for reason in &self.reasons {
            line(format!("quarantined: {reason}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and reasons come from files, so that control characters in them are escaped.
    #[test]
    fn what_would_drive_a_terminal_is_escaped() {
        let raw = "q\u{1b}[2J\rproj\nquarantined: forged";
        let status = Status {
            layers: vec![LayerStatus {
                name: raw.into(),
                status: Standing::Gathering,
                rounds_at: Some(7),
                ..LayerStatus::default()
            }],
            reasons: vec![format!("shard {raw}")],
            rejected: Some(GenerationRejected {
                generation: 3,
                problems: vec![raw.into()],
                more: 0,
            }),
            ..Status::default()
        };
        let table = status.table();
        assert!(
            table.chars().all(|c| c == '\n' || !c.is_control()),
            "{table:?}"
        );
        assert_eq!(
            table.matches("q\\u{1b}[2J\\rproj\\nquarantined").count(),
            4,
            "{table}"
        );
        assert!(!table.contains("\nquarantined: forged"), "{table}");
    }

    #[test]
    fn a_person_and_a_program_read_the_same_words() {
        let json = |value: serde_json::Result<String>| value.unwrap();
        for phase in [
            Phase::WaitingForTheFirstShard,
            Phase::Folding,
            Phase::Idle,
            Phase::Stopped,
        ] {
            let quoted = format!("\"{}\"", phase.name());
            assert_eq!(json(serde_json::to_string(&phase)), quoted);
        }
        for standing in [
            Standing::Starved,
            Standing::Waiting,
            Standing::Imatrix,
            Standing::Gathering,
            Standing::Solved,
            Standing::Converged,
            Standing::Closed,
            Standing::Reopened,
            Standing::Failed,
            Standing::Gathered,
        ] {
            let quoted = format!("\"{}\"", standing.name());
            assert_eq!(json(serde_json::to_string(&standing)), quoted);
        }
    }
}
