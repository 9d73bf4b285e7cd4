//! What stands in the ledger, and how it reads as the status that `status.json` shows.

use core::time::Duration;
use std::collections::BTreeSet;

use crate::judge::progress::{Folding, LayerSummary};
use crate::observe::notify_events::ServerStatus;
use crate::observe::run_events::GenerationRejected;
use crate::observe::status::{LayerStatus, Phase, Standing, Status, Work};
use crate::observe::waiting::WaitingForConvergence;

/// Reasons that are kept of the shards refused; the rest is only counted.
const REASONS_MAX: usize = 100;

/// What stands in the ledger.
#[derive(Debug, Default)]
pub(crate) struct LedgerEntries {
    /// The watched folder.
    pub(crate) watch: Option<String>,
    /// The output folder, where there is a checkpoint; without one nothing is solved.
    pub(crate) out: Option<String>,
    /// What the daemon is doing.
    pub(crate) phase: Phase,
    /// While it is idle: what `--until-converged` waits for.
    pub(crate) waiting: Option<WaitingForConvergence>,
    /// Shards whose rows are in the statistics, those of earlier runs too.
    pub(crate) shards: usize,
    /// Shards whose content had come before.
    pub(crate) duplicates: usize,
    /// Files that are not complete yet, or locked by their producer.
    pub(crate) incomplete: usize,
    /// Shards set aside in this run.
    pub(crate) refusals: Refusals,
    /// Shards that were gone before a snapshot held them.
    pub(crate) lost: usize,
    /// The latest generation published.
    pub(crate) generation: Option<u64>,
    /// The latest generation, where it did not pass its check.
    pub(crate) rejected: Option<GenerationRejected>,
    /// Servers of `--notify`, each as it was last seen.
    pub(crate) servers: Vec<ServerStatus>,
    /// Where the time went.
    pub(crate) work: WorkTime,
    /// By layer; by site where there is no checkpoint.
    pub(crate) layers: Vec<LayerEntry>,
}

/// Shards set aside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals {
    /// How many.
    pub(crate) count: usize,
    /// The reasons of the first of them.
    pub(crate) reasons: Vec<String>,
}

impl Refusals {
    /// One more.
    pub(crate) fn push(&mut self, reason: String) {
        self.count += 1;
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason);
        }
    }
}

/// Time of computing in this run, by what for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WorkTime {
    /// Folding rows.
    pub(crate) accumulate: Duration,
    /// Scoring corrections on new rows.
    pub(crate) score: Duration,
    /// Solving.
    pub(crate) solve: Duration,
    /// Solve points at which no layer of the site could gain by a solve.
    pub(crate) spared: u64,
}

/// One layer, or one site where there is no checkpoint.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerEntry {
    /// Module path.
    pub(crate) name: String,
    /// Rows folded of its input.
    pub(crate) rows: u64,
    /// Rows that its latest correction was solved from; 0 where it has none.
    pub(crate) rows_of_correction: u64,
    /// Whether its correction is an imatrix's, until one from rows is there.
    pub(crate) stood_in: bool,
    /// Whether it could not be solved when that was tried last.
    pub(crate) failed: bool,
    /// Of its latest correction.
    pub(crate) errors: Option<RelativeErrors>,
    /// Rows that it is rounded at, while it is not.
    pub(crate) rounds_at: Option<u64>,
    /// Whether it was said that it waits for them.
    pub(crate) gathering_said: bool,
    /// What its solve points showed, and the rows left out.
    pub(crate) summary: LayerSummary,
}

/// A layer's output errors, relative to the output's power.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelativeErrors {
    /// Without correction.
    pub(crate) without: f64,
    /// With the correction as written; none where nothing was corrected.
    pub(crate) with: Option<f64>,
}

impl LayerEntry {
    /// Whether its input has been seen.
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
            _ if self.failed => Standing::Failed,
            _ => Standing::Waiting,
        }
    }

    fn status(&self, standing: Standing) -> LayerStatus {
        LayerStatus {
            name: self.name.clone(),
            status: standing,
            rows: self.rows,
            rows_skipped: self.summary.rows_skipped,
            rows_solved: self.rows_of_correction,
            rounds_at: self.rounds_at,
            error_without: self.errors.map(|errors| errors.without),
            error_with: self.errors.and_then(|errors| errors.with),
            evidence: self.summary.evidence,
        }
    }
}

impl LedgerEntries {
    /// An imatrix stands in for the rows of these layers already.
    pub(crate) fn stood_in(&mut self, layers: &BTreeSet<String>) {
        for entry in &mut self.layers {
            entry.stood_in = layers.contains(&entry.name);
        }
    }

    /// Counts rows of a site where there is no checkpoint.
    pub(crate) fn gather(&mut self, site: usize, name: &str, rows: u64) {
        if self.layers.len() <= site {
            self.layers.resize_with(site + 1, LayerEntry::default);
        }
        let entry = &mut self.layers[site];
        name.clone_into(&mut entry.name);
        entry.rows += rows;
    }

    /// As `status` shows it.
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
