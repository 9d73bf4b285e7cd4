//! The ledger's entries, and how they read as the status that `status.json` shows.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::host::offload::accelerator::Accelerator;
use crate::judge::progress::{Folding, LayerSummary};
use crate::observe::notify_events::ServerStatus;
use crate::observe::run_events::GenerationRejected;
use crate::observe::status::{DeviceStatus, LayerStatus, Phase, Standing, Status, Work};
use crate::observe::waiting::WaitingForConvergence;
use crate::solve::solution::Failure;

/// How many reasons of refused shards are kept. Further ones are only counted.
const REASONS_MAX: usize = 100;

/// The ledger's entries.
#[derive(Debug, Default)]
pub(crate) struct LedgerEntries {
    /// The watched folder.
    pub(crate) watch: Option<String>,
    /// The output folder, where there is a checkpoint; without one nothing is solved.
    pub(crate) out: Option<String>,
    /// What the daemon is doing.
    pub(crate) phase: Phase,
    /// What `--until-converged` waits for, while the daemon is idle.
    pub(crate) waiting: Option<WaitingForConvergence>,
    /// Shards whose rows are in the statistics, including those of earlier runs.
    pub(crate) shards: usize,
    /// Shards whose content had come before.
    pub(crate) duplicates: usize,
    /// Files that are not complete yet, or locked by their producer.
    pub(crate) incomplete: usize,
    /// What of the folder the disk has not given, by name.
    pub(crate) unanswered: Vec<String>,
    /// Shards set aside in this run.
    pub(crate) refusals: Refusals,
    /// Shards that were gone before a snapshot held them.
    pub(crate) lost: usize,
    /// The latest generation published.
    pub(crate) generation: Option<u64>,
    /// The latest generation, if it did not pass its check.
    pub(crate) rejected: Option<GenerationRejected>,
    /// The servers of `--notify`, each as it was last seen.
    pub(crate) servers: Vec<ServerStatus>,
    /// The CUDA device, where one is used.
    pub(crate) device: Option<Arc<Accelerator>>,
    /// Where the computing time went.
    pub(crate) work: WorkTime,
    /// One entry for each layer; one for each site where there is no checkpoint.
    pub(crate) layers: Vec<LayerEntry>,
}

/// The shards that were set aside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    /// The number of shards that were set aside.
    pub(crate) count: usize,
    /// The reasons for the first shards that were set aside.
    pub(crate) reasons: Vec<String>,
}

impl Refusals {
    /// Counts one more, with its reason.
    pub(crate) fn push(&mut self, reason: String) {
        self.count += 1;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason);
        }
    }
}

/// Computing time of this run, by purpose.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkTime {
    /// Time spent on folding rows.
    pub(crate) accumulate: Duration,
    /// Time spent on scoring corrections on new rows.
    pub(crate) score: Duration,
    /// Time spent on solving.
    pub(crate) solve: Duration,
    /// Number of solve points that were spared, because no layer of the site could gain by a solve.
    pub(crate) spared: u64,
}

/// The entry of one layer, or of one site where there is no checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerEntry {
    /// Module path.
    pub(crate) name: String,
    /// Rows of its input that were folded.
    pub(crate) rows: u64,
    /// Rows that its latest correction was solved from; 0 where it has no correction.
    pub(crate) rows_of_correction: u64,
    /// Whether an imatrix gave its correction, until one from rows is there.
    pub(crate) stood_in: bool,
    /// Why the last attempt gave it no correction, where it gave none.
    pub(crate) failed: Option<Failure>,
    /// The errors of its latest correction.
    pub(crate) errors: Option<RelativeErrors>,
    /// The number of rows at which it will be rounded, while it is not.
    pub(crate) rounds_at: Option<u64>,
    /// Whether it was said already that it waits for these rows.
    pub(crate) gathering_said: bool,
    /// What the layer's solve points showed, and how many rows were left out.
    pub(crate) summary: LayerSummary,
}

/// A layer's output errors, relative to the output's power.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelativeErrors {
    /// Whether they are of the rows of the window, and not f.
    pub(crate) of_window: bool,
    /// Without correction.
    pub(crate) without: f64,
    /// With the correction as written; `None` where nothing was corrected.
    pub(crate) with: Option<f64>,
}

impl LayerEntry {
    /// Whether rows of its input have come.
    pub(crate) const fn is_fed(&self) -> bool {
        self.rows > 0
    }

    const fn standing(&self) -> Standing {
        match (self.summary.folding, self.summary.converged) {
            (Folding::Closed, _) => Standing::Closed,
            (_, true) => Standing::Converged,
            (Folding::Reopened, false) => Standing::Reopened,
            _ if self.stood_in => Standing::Imatrix,
            _ if !self.is_fed() => Standing::Starved,
            _ if self.rounds_at.is_some() => Standing::Gathering,
            _ if self.rows_of_correction > 0 => Standing::Solved,
            _ if self.failed.is_some() => Standing::Failed,
            _ => Standing::Waiting,
        }
    }

    fn status(&self, standing: Standing) -> LayerStatus {
        let errors = |of_window| self.errors.filter(|of| of.of_window == of_window);
        LayerStatus {
            name: self.name.clone(),
            status: standing,
            rows: self.rows,
            rows_skipped: self.summary.rows_skipped,
            rows_solved: self.rows_of_correction,
            rounds_at: self.rounds_at,
            error_without: errors(false).map(|errors| errors.without),
            error_with: errors(false).and_then(|errors| errors.with),
            window_error_without: errors(true).map(|errors| errors.without),
            window_error_with: errors(true).and_then(|errors| errors.with),
            evidence: self.summary.evidence,
        }
    }
}

impl LedgerEntries {
    /// Enters for which layers an imatrix stands in already.
    pub(crate) fn stood_in(&mut self, layers: &BTreeSet<String>) {
        for entry in &mut self.layers {
            entry.stood_in = layers.contains(&entry.name);
        }
    }

    /// Counts rows of a site, where there is no checkpoint.
    pub(crate) fn gather(&mut self, site: usize, name: &str, rows: u64) {
        if self.layers.len() <= site {
            self.layers.resize_with(site + 1, LayerEntry::default);
        }
        let entry = &mut self.layers[site];
        name.clone_into(&mut entry.name);
        entry.rows += rows;
    }

    /// The status that `status` shows.
    pub(crate) fn status(&self) -> Status {
        let standing = |layer: &LayerEntry| match self.out {
            Some(_) => layer.standing(),
            None => Standing::Gathered,
        };
        let layers = self.layers.iter();
        Status {
            running: false,
            disk_full: false,
            pid: std::process::id(),
            phase: self.phase,
            waiting: self.waiting.clone(),
            watch: self.watch.clone(),
            out: self.out.clone(),
            shards: self.shards,
            duplicates: self.duplicates,
            incomplete: self.incomplete,
            quarantined: self.refusals.count,
            reasons: self.refusals.reasons.clone(),
            lost: self.lost,
            generation: self.generation,
            rejected: self.rejected.clone(),
            servers: self.servers.clone(),
            device: self.device.as_deref().map(|accelerator| DeviceStatus {
                name: accelerator.name(),
                lost: accelerator.offload.lost().map(ToString::to_string),
            }),
            work: Work {
                accumulate: self.work.accumulate.as_secs_f64(),
                score: self.work.score.as_secs_f64(),
                solve: self.work.solve.as_secs_f64(),
                spared: self.work.spared,
            },
            layers: layers.map(|l| l.status(standing(l))).collect(),
        }
    }
}
