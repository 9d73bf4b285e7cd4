//! The wiring: every thread, every channel, what happens when one is full and when one fails.
//!
//! | thread | number | takes | gives | channel | when it is full | when the thread fails |
//! |---|---|---|---|---|---|---|
//! | feeder (the caller) | 1 | shard files, in journal order | tasks: rows of each worker's sites, "solve", "save" | one per worker, 1 task | the feeder waits: files stay on disk | a refused shard is reported and skipped |
//! | worker | `threads`, at most one a site of a checkpoint | tasks | jobs: a site to be solved | `jobs`, `threads` jobs | the worker waits | nothing new is begun, the error is returned |
//! | solver | as many as workers | jobs | solutions of a site | `outcomes`, 1 site | the solver waits | the error is returned, by layer |
//! | publisher | 1 | solutions | generations | | | nothing new is begun, the error is returned |
//! | server | one a `--notify` | the newest generation | requests to that server | none: it looks | nobody waits for it but the end of the run | what fails is said and tried again |
//!
//! A site belongs to one worker (`assignment.rs`), which folds its rows in the order of the shards;
//! a site is solved by one thread, and at a solve point its worker does not pass the next one
//! before the solution is there. So no byte of the result depends on the number of threads or on
//! who is faster. Every worker is given its part of every shard, empty or not, and what holds the
//! shard's room (`flight.rs`): at most
//! [`SHARDS_IN_FLIGHT`](crate::plan::stages::SHARDS_IN_FLIGHT) shards exist in memory, one being
//! read, one queued, one being folded, and at most
//! [`FLIGHT_BYTES`](crate::plan::stages::FLIGHT_BYTES) of them; a larger one goes alone.
//!
//! A job has the site's statistics lent to it; the worker waits for them before it folds the site's
//! next rows, so that R exists once. Workers and solvers compute only while they hold one of
//! `threads` permits: no more cores than `--threads` are used, and a worker that waits leaves its
//! core to the solver that it waits for.
//!
//! A failure or panic sets `failed`, which every stage looks at before it begins something, and
//! wakes the feeder. The stage that fails goes on emptying its channel until it is closed, so that
//! nobody waits for an answer that will not come; a panic is reported as [`Fatal::Panicked`]. The
//! first signal ends the reading after the shard in hand; what was folded is solved, published and
//! saved.

pub(crate) mod accepting;
pub(crate) mod assignment;
pub(crate) mod consume;
pub(crate) mod context;
pub(crate) mod dealer;
pub(crate) mod durability;
pub(crate) mod entries;
pub(crate) mod feeder;
pub(crate) mod flight;
pub(crate) mod gathering;
pub(crate) mod hook;
pub(crate) mod ingest_meter;
pub(crate) mod layer_outcomes;
pub(crate) mod ledger;
pub(crate) mod listener;
mod lull;
pub(crate) mod outcome;
pub(crate) mod pause;
pub(crate) mod publisher;
pub(crate) mod report;
pub(crate) mod slot;
pub(crate) mod solver;
pub(crate) mod stage_end;
pub(crate) mod stand_ins;
pub(crate) mod supply;
pub(crate) mod task;
pub(crate) mod thread;
pub(crate) mod waiting;
pub(crate) mod worker;

use crate::channel::bounded;
use crate::error::Fatal;
use crate::pipeline::assignment::assign;
use crate::pipeline::context::Context;
use crate::pipeline::dealer::Dealer;
use crate::pipeline::outcome::Drained;
use crate::pipeline::publisher::Publisher;
use crate::pipeline::solver::Solver;
use crate::pipeline::task::SolveJob;
use crate::pipeline::thread::spawn;
use crate::pipeline::worker::Worker;
use crate::publish::target::Target;
use crate::state::restore::SiteState;

/// Runs all stages until the feeder, whose loop `feed` runs in this thread, has nothing more to do.
/// What was restored and what it deals is folded, solved and published in `target`.
///
/// # Errors
/// The first [`Fatal`] of a stage, or [`Fatal::Panicked`].
pub(crate) fn run<'a>(
    context: &'a Context<'a>,
    mut restored: Vec<Option<SiteState>>,
    target: Option<Target<'a>>,
    feed: impl FnOnce(Dealer<'a>) -> Result<Option<Drained>, Fatal>,
) -> Result<Option<Drained>, Fatal> {
    let threads = context.settings.compute.threads;
    let owners = owners(context);
    let known = restored.iter().enumerate();
    let known = known.filter_map(|(site, state)| state.is_some().then_some(site));
    let known = known.collect();
    let publisher = target.map(|target| Publisher::new(context, target, &restored));
    std::thread::scope(|scope| {
        let (jobs_in, jobs) = bounded::<SolveJob>(threads);
        let (outcomes_in, outcomes) = bounded(1);
        let mut tasks = Vec::new();
        let mut workers = Vec::new();
        for own in &owners {
            let (task_in, task) = bounded(1);
            tasks.push(task_in);
            let worker = Worker::new(context, own, &mut restored, jobs_in.clone());
            workers.push(spawn(scope, "worker", context, move || worker.run(&task))?);
        }
        // A site has at most one job at a time. More solvers than sites would never all have work,
        // and each one that ever worked would keep memory of it.
        let mut solvers = Vec::new();
        for _ in 0..owners.len() {
            let jobs = jobs.clone();
            let solver = Solver::new(context, outcomes_in.clone());
            solvers.push(spawn(scope, "solver", context, move || solver.run(&jobs))?);
        }
        let publishing = publisher
            .map(|publisher| {
                let outcomes = outcomes.clone();
                spawn(scope, "publisher", context, move || {
                    publisher.run(&outcomes)
                })
            })
            .transpose()?;
        // Only the threads hold the channels now, so that a thread sees when its neighbour ends.
        drop((jobs_in, jobs, outcomes));
        let fed = feed(Dealer::new(context, owners, tasks, outcomes_in, known));
        if fed.is_err() {
            context.fail();
        }
        for worker in workers {
            worker.join()??;
        }
        for solver in solvers {
            solver.join()?;
        }
        if let Some(publisher) = publishing {
            publisher.join()??;
        }
        fed
    })
}

/// Which worker folds which sites. Without a checkpoint more sites may come, for any worker.
fn owners(context: &Context<'_>) -> Vec<Vec<usize>> {
    let (sites, threads) = (&context.sites.sites, context.settings.compute.threads);
    let workers = match context.solver {
        Some(_) => threads.min(sites.len().max(1)),
        None => threads,
    };
    assign(sites, workers)
}
