//! Worker: folds the rows of its sites in journal order, and hands a site to a solver at its solve points or when it is
//! asked to. Solver: solves what it is handed.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::calibrate::site::SiteStatistics;
use crate::calibrate::window::Block;
use crate::error::Fatal;
use crate::host::kernels::rank_update::Scratch;
use crate::judge::closing::score_site;
use crate::judge::gap::pays;
use crate::judge::progress::{LayerSummary, SiteProgress, SolvePoint};
use crate::pipeline::publisher::Outcome;
use crate::pipeline::slot::{Lent, Progress, Slot};
use crate::pipeline::stage_end::StageEnd;
use crate::pipeline::{Discard, Shared};
use crate::solve::site::{LayerSolution, SiteSolver};
use crate::source::rows::Batch;
use crate::state::journal::Gathered;
use crate::state::restore::SiteState;
use crate::state::snapshot::{SavedSite, write_site};
use crate::weights::sites::Site;

/// What the feeder asks of a worker.
pub(crate) enum Task {
    /// Rows of some of its sites, from one shard.
    Rows(Arc<Gathered>, Vec<Batch>),
    /// Solve every site that has rows newer than its last cold solution; the sender is dropped when that is done.
    Solve(Arc<Gathered>, Sender<()>),
    /// Write every site into a snapshot. The keys are those of all sites, by index.
    Save {
        folder: PathBuf,
        keys: Arc<Vec<String>>,
        saved: Sender<Result<SavedSite, Fatal>>,
    },
}

/// A site to be solved.
pub(crate) struct SolveJob {
    site: usize,
    gathered: Arc<Gathered>,
    lent: Lent,
    kind: Kind,
}

enum Kind {
    /// A solve point: the progress goes with the job and comes back.
    Point {
        progress: SiteProgress,
        newer: Vec<Block>,
        /// Whether R has enough new rows to be solved; else the corrections are only scored.
        solves: bool,
        /// Whether the worker waits, so that the evidence may close or re-open the site.
        may_change_folding: bool,
        back: Sender<SiteProgress>,
    },
    /// A cold solve; the sender only lives until it is done.
    Cold { _done: Sender<()> },
}

/// A worker and its sites.
pub(crate) struct Worker<'a> {
    shared: &'a Shared<'a>,
    slots: BTreeMap<usize, Slot>,
    jobs: Sender<SolveJob>,
    scratch: Scratch,
}

impl<'a> Worker<'a> {
    /// Takes what was saved of its own sites.
    pub(crate) fn new(
        shared: &'a Shared<'a>,
        own: &[usize],
        restored: &mut [Option<SiteState>],
        jobs: Sender<SolveJob>,
    ) -> Self {
        let mut worker = Self {
            shared,
            slots: BTreeMap::new(),
            jobs,
            scratch: Scratch::default(),
        };
        for &site in own {
            let saved = restored.get_mut(site).and_then(Option::take);
            let in_features = shared.sites.sites[site].in_features;
            let slot = worker.slot(site, in_features, saved);
            worker.slots.insert(site, slot);
        }
        worker
    }

    fn slot(&self, site: usize, in_features: usize, saved: Option<SiteState>) -> Slot {
        let shared = self.shared;
        let share = shared.scored_shares.get(site).copied().unwrap_or_default();
        let state = saved.unwrap_or_else(|| SiteState {
            statistics: SiteStatistics::with(in_features, shared.keeps_r, share),
            progress: None,
        });
        let layers = shared.sites.sites.get(site).map_or(0, |s| s.layers.len());
        let progress = if layers > 0 {
            Progress::Here(
                state
                    .progress
                    .unwrap_or_else(|| SiteProgress::new(in_features, layers)),
            )
        } else {
            Progress::None
        };
        Slot {
            statistics: Arc::new(state.statistics),
            next_point: match &progress {
                Progress::Here(progress) if shared.live => progress.next_point,
                // Only the last generation counts in a batch.
                _ => u64::MAX,
            },
            closed: matches!(&progress, Progress::Here(progress) if progress.is_closed()),
            progress,
            rows_at_last_solve: 0,
            lent: None,
        }
    }

    /// Does one task after the other until the feeder has no more.
    pub(crate) fn run(self, tasks: &Receiver<Task>) -> Result<(), Fatal> {
        // Dropped last, when this worker's jobs are closed.
        let _rest = Discard(tasks);
        let mut worker = self;
        worker.work(tasks)
    }

    fn work(&mut self, tasks: &Receiver<Task>) -> Result<(), Fatal> {
        for task in tasks {
            if self.shared.failed() {
                break;
            }
            let done = match task {
                Task::Rows(gathered, rows) => self.fold(&gathered, rows),
                Task::Solve(gathered, done) => self.solve_all(&gathered, &done),
                Task::Save {
                    folder,
                    keys,
                    saved,
                } => self.save(&folder, &keys, &saved),
            };
            match done {
                Ok(()) => {}
                Err(StageEnd::Neighbour) => break,
                Err(StageEnd::Fatal(fatal)) => {
                    self.shared.fail();
                    return Err(fatal);
                }
            }
        }
        Ok(())
    }

    fn fold(&mut self, gathered: &Arc<Gathered>, rows: Vec<Batch>) -> Result<(), StageEnd> {
        for site_rows in rows {
            if site_rows.bytes.is_empty() {
                continue;
            }
            let site = site_rows.site;
            if !self.slots.contains_key(&site) {
                let slot = self.slot(site, site_rows.in_features, None);
                self.slots.insert(site, slot);
            }
            let Some(slot) = self.slots.get_mut(&site) else {
                continue;
            };
            slot.have_back();
            let permit = self.shared.compute();
            let begun = Instant::now();
            // Nobody else has them now.
            let statistics = Arc::make_mut(&mut slot.statistics);
            let (host, scratch) = (self.shared.host(), &mut self.scratch);
            let folded = if slot.closed {
                let share = self.shared.settings.convergence.after.share();
                statistics.follow(&site_rows, share, host, scratch)
            } else {
                statistics.fold(&site_rows, host, scratch)
            };
            folded.map_err(|error| Fatal::Fold {
                site: self.shared.name_of(site),
                reason: error.to_string(),
            })?;
            if slot.closed {
                let layers = &self.shared.sites.sites[site].layers;
                self.shared.board.skipped(layers, statistics.rows_skipped);
            }
            self.shared.board.accumulated(begun.elapsed());
            drop((permit, site_rows));
            self.at_solve_point(site, gathered)?;
        }
        Ok(())
    }

    /// Hands the site to a solver when its next solve point is reached.
    fn at_solve_point(&mut self, site: usize, gathered: &Arc<Gathered>) -> Result<(), StageEnd> {
        let Some(slot) = self.slots.get_mut(&site) else {
            return Ok(());
        };
        let (seen, rows) = (slot.statistics.rows_seen(), slot.statistics.rows);
        if seen < slot.next_point {
            return Ok(());
        }
        // Not before the last point's solution is there: this one begins where that ended.
        let Some(progress) = slot.progress.here()? else {
            return Ok(());
        };
        let settings = self.shared.settings;
        let may_change_folding = settings.convergence.closes_sites()
            && progress.folding_may_change(settings.convergence.tolerance);
        let solves = progress.advance(seen, rows);
        slot.next_point = progress.next_point;
        let statistics = Arc::make_mut(&mut slot.statistics);
        let newer = statistics.take_aside(slot.closed);
        let (back, returned) = bounded(1);
        let Progress::Here(progress) =
            core::mem::replace(&mut slot.progress, Progress::Out(returned))
        else {
            return Err(StageEnd::Neighbour);
        };
        let job = SolveJob {
            site,
            gathered: Arc::clone(gathered),
            lent: slot.lend(),
            kind: Kind::Point {
                progress,
                newer,
                solves,
                may_change_folding,
                back,
            },
        };
        self.send(job)?;
        if may_change_folding {
            self.await_folding(site)?;
        }
        Ok(())
    }

    /// Waits for the evidence of a solve point that may close or re-open the site: from which row on that counts does not
    /// depend on how long a solve takes.
    fn await_folding(&mut self, site: usize) -> Result<(), StageEnd> {
        let Some(slot) = self.slots.get_mut(&site) else {
            return Ok(());
        };
        let closed = slot.progress.here()?.is_some_and(|p| p.is_closed());
        if core::mem::replace(&mut slot.closed, closed) != closed {
            Arc::make_mut(&mut slot.statistics).begin_folding_anew(closed);
        }
        Ok(())
    }

    fn solve_all(&mut self, gathered: &Arc<Gathered>, done: &Sender<()>) -> Result<(), StageEnd> {
        // Solving takes its own memory.
        self.scratch = Scratch::default();
        let sites: Vec<usize> = self.slots.keys().copied().collect();
        for site in sites {
            let Some(slot) = self.slots.get_mut(&site) else {
                continue;
            };
            let rows = slot.statistics.rows;
            if rows == 0 || rows == slot.rows_at_last_solve {
                continue;
            }
            // A solve point that is under way comes first, so that the cold solution is the last word.
            slot.progress.here()?;
            slot.rows_at_last_solve = rows;
            let job = SolveJob {
                site,
                gathered: Arc::clone(gathered),
                lent: slot.lend(),
                kind: Kind::Cold {
                    _done: done.clone(),
                },
            };
            self.send(job)?;
        }
        Ok(())
    }

    fn send(&self, job: SolveJob) -> Result<(), StageEnd> {
        self.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        self.jobs.send(job).map_err(|_| StageEnd::Neighbour)
    }

    fn save(
        &mut self,
        folder: &std::path::Path,
        keys: &[String],
        saved: &Sender<Result<SavedSite, Fatal>>,
    ) -> Result<(), StageEnd> {
        for (&site, slot) in &mut self.slots {
            let progress = slot.progress.here()?;
            let id = (site, keys[site].as_str());
            let done = write_site(folder, id, &slot.statistics, progress.as_deref());
            saved.send(done).map_err(|_| StageEnd::Neighbour)?;
        }
        Ok(())
    }
}

/// Solver: solves job after job.
pub(crate) fn solve(shared: &Shared<'_>, jobs: &Receiver<SolveJob>, outcomes: &Sender<Outcome>) {
    let _rest = Discard(jobs);
    for job in jobs {
        let Some(solver) = shared.solver.as_ref().filter(|_| !shared.failed()) else {
            return;
        };
        let SolveJob {
            site: index,
            gathered,
            lent,
            mut kind,
        } = job;
        let statistics = &*lent.statistics;
        let site = &shared.sites.sites[index];
        let permit = shared.compute();
        let begun = Instant::now();
        let mut scoring = Duration::ZERO;
        let solved = match &mut kind {
            Kind::Cold { .. } => {
                shared.warn(site, statistics);
                solver.solve(site, statistics, None)
            }
            Kind::Point {
                progress,
                newer,
                solves,
                ..
            } => {
                let point = SolvePoint {
                    progress,
                    newer,
                    scoring: &mut scoring,
                };
                at_point(shared, solver, site, (statistics, point), *solves)
            }
        };
        shared.board.solved(begun.elapsed(), scoring);
        let seen = statistics.rows_seen();
        // Before anything waits: the worker folds on.
        drop((lent, permit));
        let progress = match &mut kind {
            Kind::Point {
                progress,
                may_change_folding,
                ..
            } => Some(judged(
                shared,
                site,
                seen,
                progress,
                *may_change_folding && solved.is_ok(),
            )),
            Kind::Cold { .. } => None,
        };
        let outcome = match solved {
            Ok(solutions) => Outcome::Solved {
                site: index,
                gathered,
                solutions,
                progress,
            },
            Err(fatal) => {
                shared.fail();
                Outcome::Failed(fatal)
            }
        };
        let failed = matches!(outcome, Outcome::Failed(_));
        if outcomes.send(outcome).is_err() || failed {
            return;
        }
        if let Kind::Point { progress, back, .. } = kind {
            // A worker that ended does not wait for it.
            let _ = back.send(progress);
        }
    }
}

/// Solves a site at a solve point, or only scores its corrections: where R has too little that is new, or a solve would
/// gain nothing to speak of.
fn at_point(
    shared: &Shared<'_>,
    solver: &SiteSolver<'_>,
    site: &Site,
    (statistics, point): (&SiteStatistics, SolvePoint<'_>),
    solves: bool,
) -> Result<Vec<LayerSolution>, Fatal> {
    if solves {
        let pays = pays(&solver.layers_of(site), statistics, point.progress)?;
        point.progress.spared = !pays;
        if pays {
            return solver.solve(site, statistics, Some(point));
        }
        shared.board.spared();
    }
    score_site(&solver.layers_of(site), statistics.rows_seen(), point)?;
    Ok(Vec::new())
}

/// What is to be told of a site after a solve point; one that `may_change_folding` is closed or re-opened where the evidence says so.
fn judged(
    shared: &Shared<'_>,
    site: &Site,
    seen: u64,
    progress: &mut SiteProgress,
    may_change_folding: bool,
) -> Vec<LayerSummary> {
    let tolerance = shared.settings.convergence.tolerance;
    if may_change_folding {
        shared.tell_folding_change(site, seen, &progress.update_folding(tolerance));
    }
    progress.summaries(tolerance)
}
