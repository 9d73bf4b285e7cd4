//! The wiring: every thread, every channel, what happens when one is full and when one fails.
//!
//! | thread | number | takes | gives | channel | when it is full | when the thread fails |
//! |---|---|---|---|---|---|---|
//! | feeder (the caller) | 1 | shard files, in journal order | tasks: rows of each worker's sites, "solve", "save" | one per worker, 1 task | the feeder waits: files stay on disk | a refused shard is reported and skipped |
//! | worker | `threads`, at most one a site of a checkpoint | tasks | jobs: a site to be solved | `jobs`, `threads` jobs | the worker waits | nothing new is begun, the error is returned |
//! | solver | `threads` | jobs | solutions of a site | `outcomes`, 1 site | the solver waits | the error is returned, by layer |
//! | publisher | 1 | solutions | generations | | | nothing new is begun, the error is returned |
//!
//! A site belongs to one worker (`assignment.rs`), which folds its rows in the order of the shards; a site is
//! solved by one thread, and at a solve point its worker does not pass the next one before the solution is there. So no
//! byte of the result depends on the number of threads or on who is faster. Every worker is given its part of every shard,
//! empty or not, so at most [`SHARDS_IN_FLIGHT`] shards exist in memory: one being read, one queued, one being folded.
//!
//! A job has the site's statistics lent to it; the worker waits for them before it folds the site's next rows, so that R
//! exists once. Workers and solvers compute only while they hold one of `threads` permits: no more cores than
//! `--threads` are used, and a worker that waits leaves its core to the solver that it waits for.
//!
//! A failure or panic sets `failed`, which every stage looks at before it begins something, and wakes the feeder. The stage that
//! fails goes on emptying its channel until it is closed, so that nobody waits for an answer that will not come; a panic
//! is reported as [`Fatal::Panicked`]. The
//! first signal ends the reading after the shard in hand; what was folded is solved, published and saved.

pub(crate) mod assignment;
pub(crate) mod board;
pub(crate) mod durability;
pub(crate) mod feeder;
pub(crate) mod publisher;
pub(crate) mod report;
pub(crate) mod slot;
pub(crate) mod source;
pub(crate) mod stage_end;
pub(crate) mod worker;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, bounded};

use crate::error::Fatal;
use crate::host::compute::Compute;
use crate::host::cores::{Core, Cores};
use crate::observe::reporter::Reporter;
use crate::pipeline::board::Board;
use crate::pipeline::feeder::{FeedReport, Feeder};
use crate::pipeline::publisher::Publisher;
use crate::pipeline::source::Source;
use crate::pipeline::worker::{SolveJob, Worker};
use crate::publish::target::Target;
use crate::settings::Settings;
use crate::solve::site::SiteSolver;
use crate::source::watch::Wake;
use crate::state::journal::Gathered;
use crate::state::restore::SiteState;
use crate::weights::sites::Sites;

/// What the pipeline works on.
#[derive(Debug)]
pub(crate) struct Pipeline<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The sites; more may come where there is no checkpoint.
    pub(crate) sites: &'a Sites,
    /// Whether R is gathered.
    pub(crate) keeps_r: bool,
    /// Rows kept aside, by site.
    pub(crate) scored_shares: Vec<f64>,
    /// The shards that the statistics hold.
    pub(crate) gathered: Gathered,
    /// What was saved of the sites.
    pub(crate) restored: Vec<Option<SiteState>>,
    /// Journal position that the current generation has seen: none of an earlier one is published.
    pub(crate) floor: u64,
    /// Solves a site; `None` where there is no checkpoint.
    pub(crate) solver: Option<SiteSolver<'a>>,
    /// The cores that may be used.
    pub(crate) cores: &'a Cores,
    /// Set by the first signal.
    pub(crate) stop: &'a AtomicBool,
    /// Where events go.
    pub(crate) reporter: &'a Reporter,
    /// What `status` shows.
    pub(crate) board: &'a Board<'a>,
}

/// What all stages share.
#[derive(Debug)]
struct Shared<'a> {
    settings: &'a Settings,
    sites: &'a Sites,
    keeps_r: bool,
    scored_shares: Vec<f64>,
    solver: Option<SiteSolver<'a>>,
    floor: u64,
    stop: &'a AtomicBool,
    reporter: &'a Reporter,
    board: &'a Board<'a>,
    /// Whether sites are solved at their solve points.
    live: bool,
    /// Set when a stage fails, so that no other begins something new.
    failed: AtomicBool,
    /// Set when the layers have converged and the run shall end.
    converged: AtomicBool,
    /// Ends the feeder's wait.
    wake: Option<Wake>,
    /// Jobs that were sent and whose outcome the publisher has not seen.
    in_flight: AtomicUsize,
    cores: &'a Cores,
}

impl Shared<'_> {
    fn compute(&self) -> Core<'_> {
        self.cores.take()
    }

    fn host(&self) -> Compute<'_> {
        Compute {
            kernel: self.settings.compute.kernel,
            cores: self.cores,
        }
    }

    /// For messages.
    fn name_of(&self, site: usize) -> String {
        let site = self.sites.sites.get(site);
        site.map_or_else(String::new, |site| site.name.clone())
    }

    fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Ends the feeder's wait: something happened that it looks at.
    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake.wake();
        }
    }
}

impl<'a> Pipeline<'a> {
    /// Which worker folds which sites; without a checkpoint more may come, for any worker.
    fn owners(&self) -> Vec<Vec<usize>> {
        let (sites, threads) = (&self.sites.sites, self.settings.compute.threads);
        let workers = match self.solver {
            Some(_) => threads.min(sites.len().max(1)),
            None => threads,
        };
        assignment::assign(sites, workers)
    }

    /// Runs all stages until the feeder has nothing more to do: what was saved and what `source` gives is folded, solved
    /// and published in `target`.
    ///
    /// # Errors
    /// The first [`Fatal`] of a stage, or [`Fatal::Panicked`].
    pub(crate) fn run(
        self,
        source: Option<Source<'a>>,
        target: Option<Target<'a>>,
    ) -> Result<FeedReport, Fatal> {
        let threads = self.settings.compute.threads;
        let owners = self.owners();
        let tolerance = self.settings.convergence.tolerance;
        let publisher =
            target.map(|target| Publisher::new(target, &self.restored, self.sites, tolerance));
        let shared = Shared {
            settings: self.settings,
            sites: self.sites,
            keeps_r: self.keeps_r,
            scored_shares: self.scored_shares,
            solver: self.solver,
            floor: self.floor,
            stop: self.stop,
            reporter: self.reporter,
            board: self.board,
            live: source.is_some() && !self.settings.convergence.is_once(),
            failed: AtomicBool::new(false),
            converged: AtomicBool::new(false),
            wake: source.as_ref().and_then(|source| source.wake.clone()),
            in_flight: AtomicUsize::new(0),
            cores: self.cores,
        };
        let (shared, gathered, mut restored) = (&shared, &self.gathered, self.restored);
        std::thread::scope(|scope| {
            let (jobs_in, jobs) = bounded::<SolveJob>(threads);
            let (outcomes_in, outcomes) = bounded(1);
            let mut tasks = Vec::new();
            let mut workers = Vec::new();
            for own in owners.iter() {
                let (task_in, task) = bounded(1);
                tasks.push(task_in);
                let worker = Worker::new(shared, own, &mut restored, jobs_in.clone());
                workers.push(spawn(scope, "worker", shared, move || worker.run(&task))?);
            }
            let mut solvers = Vec::new();
            for _ in 0..threads {
                let (jobs, out) = (jobs.clone(), outcomes_in.clone());
                solvers.push(spawn(scope, "solver", shared, move || {
                    worker::solve(shared, &jobs, &out)
                })?);
            }
            let publishing = publisher
                .map(|publisher| {
                    let outcomes = outcomes.clone();
                    spawn(scope, "publisher", shared, move || {
                        publisher.run(shared, &outcomes)
                    })
                })
                .transpose()?;
            // Only the threads hold the channels now, so that the end of one is seen by the next.
            drop((jobs_in, jobs, outcomes));
            let feeder = Feeder::new(shared, owners, tasks, outcomes_in);
            let fed = feeder.run(source, gathered);
            if fed.is_err() {
                shared.fail();
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
}

/// A thread of the scope whose panic becomes an error.
struct Running<'scope, T> {
    name: &'static str,
    handle: ScopedJoinHandle<'scope, T>,
}

/// Sets the flag when the thread that holds it panics.
struct PanicFlag<'a>(&'a Shared<'a>);

impl Drop for PanicFlag<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail();
        }
    }
}

/// Takes and drops what still comes until the channel is closed, also when its thread fails or panics: a message that
/// stays in a channel keeps the answers alive that others wait for.
struct Discard<'a, T>(&'a Receiver<T>);

impl<T> Drop for Discard<'_, T> {
    fn drop(&mut self) {
        self.0.iter().for_each(drop);
    }
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &'static str,
    shared: &'scope Shared<'_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<Running<'scope, T>, Fatal> {
    let handle = Builder::new()
        .name(name.into())
        .spawn_scoped(scope, move || {
            let _flag = PanicFlag(shared);
            work()
        })
        .map_err(Fatal::io(std::path::Path::new(name), "start the thread"))?;
    Ok(Running { name, handle })
}

impl<T> Running<'_, T> {
    fn join(self) -> Result<T, Fatal> {
        self.handle.join().map_err(|panic| Fatal::Panicked {
            thread: self.name,
            message: panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default(),
        })
    }
}
