//! Solver: takes jobs from workers, solves the site of each, and tells the publisher.

use core::time::Duration;

use crate::calibrate::site::SiteStatistics;
use crate::channel::{Receiver, Sender};
use crate::disk::clock;
use crate::error::Fatal;
use crate::host::core_time::{WorkKind, doing};
use crate::judge::closing::score_site;
use crate::judge::gap::pays;
use crate::judge::progress::{LayerSummary, SolvePoint};
use crate::pipeline::context::Context;
use crate::pipeline::gathering::SolvePlace;
use crate::pipeline::outcome::{Outcome, SiteOutcome};
use crate::pipeline::stage_end::StageEnd;
use crate::pipeline::task::{JobKind, PointJob, SolveJob};
use crate::pipeline::thread::Discard;
use crate::solve::site::SiteSolver;
use crate::solve::solution::SolvedSite;
use crate::weights::sites::Site;

/// The solver's own state.
pub(crate) struct Solver<'a> {
    context: &'a Context<'a>,
    outcomes: Sender<Outcome>,
}

impl<'a> Solver<'a> {
    /// A solver that sends the outcomes of its jobs to the publisher.
    pub(crate) const fn new(context: &'a Context<'a>, outcomes: Sender<Outcome>) -> Self {
        Self { context, outcomes }
    }

    /// Solves job after job until there are no more workers.
    pub(crate) fn run(self, jobs: &Receiver<SolveJob>) {
        let _rest = Discard(jobs);
        for job in jobs {
            let solver = self.context.solver.as_ref();
            let Some(solver) = solver.filter(|_| !self.context.failed()) else {
                return;
            };
            match self.take(solver, job) {
                Ok(()) => {}
                Err(StageEnd::Neighbour) => return,
                Err(StageEnd::Fatal(fatal)) => {
                    self.context.fail();
                    // If the publisher ended early, it had an error of its own.
                    let _ = self.outcomes.send(Outcome::Failed(fatal));
                    return;
                }
            }
        }
    }

    fn take(&self, solver: &SiteSolver<'a>, job: SolveJob) -> Result<(), StageEnd> {
        let context = self.context;
        let SolveJob {
            site: index,
            gathered,
            lent,
            mut kind,
        } = job;
        let statistics = &*lent.statistics;
        let site = &context.sites.sites[index];
        let core = context.take_core();
        let begun = clock::now();
        let mut scoring = Duration::ZERO;
        let place = SolvePlace {
            journal_position: gathered.position,
            drained: matches!(kind, JobKind::Cold { .. }),
        };
        let quantized = doing(WorkKind::Round, || {
            context.quantize(solver, site, statistics, place)
        })?;
        let solved = match &mut kind {
            _ if !quantized => Ok(SolvedSite::default()),
            JobKind::Cold { .. } => {
                context.warn(site, statistics);
                doing(WorkKind::Subspace, || solver.solve(site, statistics, None))
            }
            JobKind::Point(job) => {
                let solves = job.solves;
                let point = SolvePoint {
                    progress: &mut job.progress,
                    newer: &job.newer,
                    scoring: &mut scoring,
                };
                doing(WorkKind::Measure, || {
                    self.solve_point(solver, site, statistics, point, solves)
                })
            }
        };
        context.ledger.solve_took(clock::since(begun), scoring);
        let seen = statistics.rows_seen();
        // Everything lent is given back before anything waits, so that the worker folds on.
        drop((lent, core));
        let solved = solved?;
        context.tell_demoted(&site.name, &solved.demoted);
        let summaries = match &mut kind {
            JobKind::Point(job) => Some(self.judge(site, seen, job)),
            JobKind::Cold { .. } => None,
        };
        let outcome = SiteOutcome {
            site: index,
            gathered,
            solved,
            summaries,
        };
        let sent = self.outcomes.send(Outcome::Site(outcome));
        sent.map_err(|_| StageEnd::Neighbour)?;
        if let JobKind::Point(job) = kind {
            // A worker that ended does not wait for the progress.
            let _ = job.back.send(job.progress);
        }
        Ok(())
    }

    /// Solves a site at a solve point. Its corrections are only scored where R has too few new
    /// rows, or where a solve would gain next to nothing.
    fn solve_point(
        &self,
        solver: &SiteSolver<'a>,
        site: &'a Site,
        statistics: &SiteStatistics,
        point: SolvePoint<'_>,
        solves: bool,
    ) -> Result<SolvedSite, Fatal> {
        if solves {
            let pays = pays(&solver.layers_of(site), statistics, point.progress);
            // The solve itself finds out which layer cannot be solved.
            let pays = pays.or_else(|fatal| fatal.of_layer().map(|_| true))?;
            point.progress.spared = !pays;
            if pays {
                let solve = || solver.solve(site, statistics, Some(point));
                return doing(WorkKind::Subspace, solve);
            }
            self.context.ledger.solve_spared();
        }
        score_site(&solver.layers_of(site), statistics.rows_seen(), point)?;
        Ok(SolvedSite::default())
    }

    /// What a solve point showed of the site's layers. If the worker waits for that, the evidence
    /// may close or re-open the site.
    fn judge(&self, site: &Site, seen: u64, job: &mut PointJob) -> Vec<LayerSummary> {
        let tolerance = self.context.settings.convergence.tolerance;
        if job.may_change_folding {
            let change = job.progress.update_folding(tolerance);
            self.context.tell_folding_change(site, seen, &change);
        }
        job.progress.summaries(tolerance)
    }
}
