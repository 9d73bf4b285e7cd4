//! Worker: folds the rows of its sites in journal order, and hands a site to a solver at its solve
//! points or when it is asked to.

use core::sync::atomic::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::calibrate::device_sums::DeviceSums;
use crate::calibrate::site::{FoldError, FoldTools, SiteStatistics};
use crate::channel::{Receiver, Sender, bounded};
use crate::disk::clock;
use crate::error::Fatal;
use crate::host::core_time::{WorkKind, doing};
use crate::host::kernels::pages::give_back;
use crate::host::kernels::rank_update::Scratch;
use crate::judge::progress::SiteProgress;
use crate::pipeline::context::Context;
use crate::pipeline::slot::{Lent, Progress, Slot};
use crate::pipeline::stage_end::StageEnd;
use crate::pipeline::task::{JobKind, PointJob, RowsTask, SaveTask, SolveJob, Task};
use crate::pipeline::thread::Discard;
use crate::state::journal::Gathered;
use crate::state::restore::SiteState;
use crate::state::snapshot::{SiteToSave, write_site};

/// A worker and its sites.
pub(crate) struct Worker<'a> {
    context: &'a Context<'a>,
    slots: BTreeMap<usize, Slot>,
    jobs: Sender<SolveJob>,
    scratch: Scratch,
}

impl<'a> Worker<'a> {
    /// A worker that takes over what was saved of its sites.
    pub(crate) fn new(
        context: &'a Context<'a>,
        own: &[usize],
        restored: &mut [Option<SiteState>],
        jobs: Sender<SolveJob>,
    ) -> Self {
        let mut worker = Self {
            context,
            slots: BTreeMap::new(),
            jobs,
            scratch: Scratch::default(),
        };
        for &site in own {
            let saved = restored.get_mut(site).and_then(Option::take);
            let in_features = context.sites.sites[site].in_features;
            let slot = worker.slot(site, in_features, saved);
            worker.slots.insert(site, slot);
        }
        worker
    }

    fn slot(&self, site: usize, in_features: usize, saved: Option<SiteState>) -> Slot {
        let context = self.context;
        let share = context.scored_shares.get(site).copied().unwrap_or_default();
        let state = saved.unwrap_or_else(|| SiteState {
            statistics: match context.sites.sites.get(site) {
                Some(site) => SiteStatistics::of_site(site, share),
                None => SiteStatistics::new(in_features, context.sites.second_moment(), share),
            },
            progress: None,
        });
        let layers = context.sites.sites.get(site).map_or(0, |s| s.layers.len());
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
                Progress::Here(progress) if context.live => progress.next_point,
                // A batch run publishes only once, at its end.
                _ => u64::MAX,
            },
            closed: matches!(&progress, Progress::Here(progress) if progress.is_closed()),
            progress,
            rows_at_cold_solve: 0,
            lent: None,
            device: DeviceSums::on(context.summing_device(site)),
        }
    }

    /// Does one task after the other until the feeder has no more.
    pub(crate) fn run(self, tasks: &Receiver<Task>) -> Result<(), Fatal> {
        // Declared first, so that it is dropped last, when this worker's jobs are closed.
        let _rest = Discard(tasks);
        let mut worker = self;
        worker.work(tasks)
    }

    fn work(&mut self, tasks: &Receiver<Task>) -> Result<(), Fatal> {
        loop {
            let waiting = clock::now();
            let Ok(task) = tasks.recv() else {
                break;
            };
            if self.context.failed() {
                break;
            }
            let done = match task {
                Task::Rows(rows) => {
                    self.context.ingest.shard_awaited(waiting);
                    self.fold(rows)
                }
                Task::Solve(gathered, done) => self.solve_all(&gathered, &done),
                Task::Save(task) => self.save(&task),
            };
            match done {
                Ok(()) => {}
                Err(StageEnd::Neighbour) => break,
                Err(StageEnd::Fatal(fatal)) => {
                    self.context.fail();
                    return Err(fatal);
                }
            }
        }
        Ok(())
    }

    /// Folds what a shard has for the sites. A site's sums come before its rows, so that at a solve
    /// point the whole shard counts.
    fn fold(&mut self, rows: RowsTask) -> Result<(), StageEnd> {
        let RowsTask {
            gathered,
            room,
            part,
            ticket: _ticket,
        } = rows;
        let mut fed = BTreeSet::new();
        for sum in part.sums {
            let site = sum.site;
            self.fold_into(site, sum.in_features, |slot, share, tools| {
                slot.fold_sum(&sum, room, share, tools)
            })?;
            fed.insert(site);
        }
        for rows in part.rows {
            let site = rows.site;
            if rows.bytes.is_empty() {
                continue;
            }
            self.fold_into(site, rows.in_features, |slot, share, tools| {
                slot.fold_rows(rows, room, share, tools)
            })?;
            fed.remove(&site);
            self.at_solve_point(site, &gathered)?;
        }
        self.complete_beyond(self.context.summed.kept_bytes());
        fed.into_iter()
            .try_for_each(|site| self.at_solve_point(site, &gathered))
    }

    /// Folds something into a site: of a closed one the share that is given with it.
    fn fold_into(
        &mut self,
        site: usize,
        in_features: usize,
        fold: impl FnOnce(&mut Slot, Option<f64>, &mut FoldTools<'_>) -> Result<(), FoldError>,
    ) -> Result<(), StageEnd> {
        if !self.slots.contains_key(&site) {
            let slot = self.slot(site, in_features, None);
            self.slots.insert(site, slot);
        }
        let Some(slot) = self.slots.get_mut(&site) else {
            return Ok(());
        };
        slot.have_back();
        let _permit = self.context.take_core();
        let begun = clock::now();
        let after = &self.context.settings.convergence.after;
        let share = slot.closed.then(|| after.share());
        let tools = &mut FoldTools {
            compute: self.context.compute(),
            scratch: &mut self.scratch,
            layers: self.context.layers_of(site),
        };
        let folded = doing(WorkKind::Accumulate, || fold(slot, share, tools));
        folded.map_err(|error| {
            let of_site = |reason| Fatal::Fold {
                site: self.context.name_of(site),
                reason,
            };
            match error {
                FoldError::Weights(error) => error.downcast().map_or_else(of_site, |fatal| *fatal),
                error => of_site(error.into()),
            }
        })?;
        if slot.closed {
            let layers = &self.context.sites.sites[site].layers;
            let skipped = slot.statistics.rows_skipped;
            self.context.ledger.rows_skipped(layers, skipped);
        }
        let took = clock::since(begun);
        self.context.ledger.fold_took(took);
        self.context.ingest.folded(took);
        self.note_device(site);
        Ok(())
    }

    /// Has R of sites come down from the device while more rows are kept than there is room for,
    /// those first that keep most.
    fn complete_beyond(&mut self, room: u64) {
        loop {
            let kept = |slot: &Slot| slot.device.kept_bytes();
            let all: u64 = self.slots.values().map(kept).sum();
            let largest = self.slots.iter().max_by_key(|(_, slot)| kept(slot));
            let Some((&site, _)) = largest.filter(|_| all > room) else {
                return;
            };
            self.complete(site);
        }
    }

    /// Makes R of a site whole.
    fn complete(&mut self, site: usize) {
        if let Some(slot) = self.slots.get_mut(&site)
            && !slot.device.is_complete()
        {
            let _permit = self.context.take_core();
            let tools = &mut FoldTools {
                compute: self.context.compute(),
                scratch: &mut self.scratch,
                layers: None,
            };
            doing(WorkKind::Accumulate, || slot.complete(tools));
            self.note_device(site);
        }
    }

    /// The statistics of a site, for a solver.
    fn lend(&mut self, site: usize) -> Option<Lent> {
        self.complete(site);
        Some(self.slots.get_mut(&site)?.lend())
    }

    /// Notes that a device summed rows of a site, and says that it failed.
    fn note_device(&mut self, site: usize) {
        let Some(slot) = self.slots.get_mut(&site) else {
            return;
        };
        let accelerator = self.context.settings.compute.device.accelerator();
        if let Some(accelerator) = accelerator.filter(|_| slot.device.has_summed()) {
            accelerator.worked().summed(self.context.name_of(site));
        }
        if let Some(error) = slot.device.take_failure() {
            let failure = [format!("summing rows: {error}")];
            let name = self.context.name_of(site);
            self.context.tell_demoted(&name, &failure);
        }
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
        // This solve begins where the last one ended, so it waits for that solution.
        let Some(progress) = slot.progress.here()? else {
            return Ok(());
        };
        let settings = self.context.settings;
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
        let Some(lent) = self.lend(site) else {
            return Ok(());
        };
        let job = SolveJob {
            site,
            gathered: Arc::clone(gathered),
            lent,
            kind: JobKind::Point(PointJob {
                progress,
                newer,
                solves,
                may_change_folding,
                back,
            }),
        };
        self.send(job)?;
        if may_change_folding {
            self.await_folding(site)?;
        }
        Ok(())
    }

    /// Waits for the evidence of a solve point that may close or re-open the site, so that the row
    /// from which that holds does not depend on how long a solve takes.
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
        // Solving needs memory of its own, so that of folding is given back.
        self.scratch = Scratch::default();
        give_back();
        let sites: Vec<usize> = self.slots.keys().copied().collect();
        for site in sites {
            let Some(slot) = self.slots.get_mut(&site) else {
                continue;
            };
            let rows = slot.statistics.rows;
            if rows == 0 || rows == slot.rows_at_cold_solve {
                continue;
            }
            // A solve point that is under way ends first, so that the cold solution is the last
            // one.
            slot.progress.here()?;
            // Whether a site without W~ gets one, and so a solution, may depend on other sites.
            let solves = self.context.is_quantized(site);
            slot.rows_at_cold_solve = if solves { rows } else { 0 };
            let Some(lent) = self.lend(site) else {
                continue;
            };
            let job = SolveJob {
                site,
                gathered: Arc::clone(gathered),
                lent,
                kind: JobKind::Cold {
                    _done: done.clone(),
                },
            };
            self.send(job)?;
        }
        Ok(())
    }

    fn send(&self, job: SolveJob) -> Result<(), StageEnd> {
        self.context.jobs_in_flight.fetch_add(1, Ordering::SeqCst);
        self.jobs.send(job).map_err(|_| StageEnd::Neighbour)
    }

    fn save(&mut self, task: &SaveTask) -> Result<(), StageEnd> {
        // As long as rows are kept, R of their site is not whole.
        self.complete_beyond(0);
        for (&site, slot) in &mut self.slots {
            let progress = slot.progress.here()?;
            let site = SiteToSave {
                number: site,
                key: &task.keys[site],
                statistics: &slot.statistics,
                progress: progress.as_deref(),
            };
            let saved = doing(WorkKind::Write, || write_site(&task.folder, site));
            task.saved.send(saved).map_err(|_| StageEnd::Neighbour)?;
        }
        Ok(())
    }
}
