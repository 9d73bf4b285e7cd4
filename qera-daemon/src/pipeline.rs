//! The wiring: every thread, every channel, what happens when one is full and when one fails.
//!
//! | thread | number | takes | gives | channel | when it is full | when the thread fails |
//! |---|---|---|---|---|---|---|
//! | reader | 1 | shard files, by name | rows of each site | one per worker, 1 shard | the reader waits: files stay on disk | a refused shard is reported and skipped |
//! | worker | `threads`, at most one a site | rows of its own sites | finished statistics | `finished`, 1 site | the worker waits | the run stops |
//! | solver | as many | finished statistics | solutions of a site | `solved`, 1 site | the solver waits | the run stops, by layer |
//! | caller | 1 | solutions | the sorted list | | | |
//!
//! A site belongs to one worker, which folds its rows in the order of the shards; a site is solved by one
//! thread. So no byte of the result depends on the number of threads. Workers hand a site over when the
//! last shard is folded and solvers sleep until then; at most `threads` sites are being computed on, and
//! at most [`SHARDS_IN_FLIGHT`] decoded shards exist: one being read, one queued, one being folded.
//!
//! A panic anywhere closes that thread's channels; its neighbours then end, and the panic is reported as
//! [`Stop::Panicked`]. The first signal ends the reading after the shard in hand; what was folded is
//! solved and published.

mod report;

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::calibrate::{SiteStatistics, scratch_len};
use crate::checkpoint::Site;
use crate::error::Stop;
use crate::observe::{Event, Reporter};
use crate::solve::{LayerSolution, SiteSolver};
use crate::source::{Admitted, Shard, SiteRows, read};

/// Decoded shards that can exist at one time.
pub const SHARDS_IN_FLIGHT: usize = 3;

/// What the pipeline works on.
#[derive(Debug)]
pub struct Pipeline<'a> {
    /// Admitted shards, in the order in which they are folded.
    pub shards: &'a [Admitted],
    /// The sites.
    pub sites: &'a [Site],
    /// Solves a site.
    pub solver: SiteSolver<'a>,
    /// Threads of each compute stage.
    pub threads: usize,
    /// Set by the first signal.
    pub stop: &'a AtomicBool,
    /// Where events go.
    pub reporter: &'a Reporter,
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    /// Sorted by layer.
    pub solutions: Vec<LayerSolution>,
    /// Shards folded.
    pub folded: usize,
    /// Messages of shards refused while they were read.
    pub refused: Vec<String>,
}

struct Finished {
    site: usize,
    statistics: SiteStatistics,
}

type Solved = Result<Vec<LayerSolution>, Stop>;

impl Pipeline<'_> {
    /// Runs all stages to the end.
    ///
    /// # Errors
    /// The first [`Stop`] of a stage, or [`Stop::Panicked`].
    pub fn run(&self) -> Result<Outcome, Stop> {
        let workers = self.threads.min(self.sites.len());
        // Set when a stage fails, so that no other starts new work.
        let failed = AtomicBool::new(false);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            let (finished_in, finished) = bounded::<Finished>(1);
            let (solved_in, solved) = bounded::<Solved>(1);
            let mut row_inputs = Vec::new();
            let mut threads = Vec::new();
            for worker in 0..workers {
                let (rows_in, rows) = bounded::<Vec<SiteRows>>(1);
                row_inputs.push(rows_in);
                let (out, failure) = (finished_in.clone(), &failure);
                threads.push(spawn(scope, "worker", move || {
                    self.accumulate(worker, workers, &rows, &out, failure)
                })?);
            }
            for _ in 0..workers {
                let (input, out, failed) = (finished.clone(), solved_in.clone(), &failed);
                threads.push(spawn(scope, "solver", move || {
                    self.solve(&input, &out, failed)
                })?);
            }
            // Only the threads hold the channels now, so that the end of one is seen by the next.
            drop((finished_in, finished, solved_in));
            let (failed, failure) = (&failed, &failure);
            let reader = spawn(scope, "reader", move || self.read(&row_inputs, failed))?;

            let solutions = self.collect(&solved, failed);
            let read = reader.join();
            for thread in threads {
                thread.join()?;
            }
            let (folded, refused) = read?;
            if let Some(stop) = failure.lock().ok().and_then(|mut f| f.take()) {
                return Err(stop);
            }
            Ok(Outcome {
                solutions: solutions?,
                folded,
                refused,
            })
        })
    }

    /// Reader: decodes shard after shard and gives each worker the rows of its sites.
    fn read(&self, workers: &[Sender<Vec<SiteRows>>], failed: &AtomicBool) -> (usize, Vec<String>) {
        let (mut folded, mut refused) = (0, Vec::new());
        for admitted in self.shards {
            if self.stop.load(Ordering::SeqCst) || failed.load(Ordering::SeqCst) {
                break;
            }
            match read(admitted) {
                Ok(shard) => {
                    let (name, rows) = (shard.name.clone(), shard.rows);
                    if !deal(shard, workers) {
                        break; // A worker ended early; the caller reports why.
                    }
                    folded += 1;
                    self.reporter.say(&Event::ShardFolded {
                        shard: &name,
                        rows,
                        ignored_keys: admitted.ignored_keys,
                    });
                }
                Err(refusal) => {
                    let message = refusal.to_string();
                    self.reporter.say(&Event::ShardQuarantined {
                        message: message.clone(),
                    });
                    refused.push(message);
                }
            }
            self.reporter.step(&admitted.name);
        }
        (folded, refused)
    }

    /// Worker: folds the rows of its sites, then hands the sites over.
    fn accumulate(
        &self,
        worker: usize,
        workers: usize,
        rows: &Receiver<Vec<SiteRows>>,
        finished: &Sender<Finished>,
        failure: &Mutex<Option<Stop>>,
    ) {
        let lone_shard = self.shards.len() == 1;
        let own = || self.sites.iter().enumerate().skip(worker).step_by(workers);
        let mut statistics: Vec<_> = own()
            .map(|(_, s)| SiteStatistics::new(s.in_features, lone_shard))
            .collect();
        let widest = own().map(|(_, s)| s.in_features).max().unwrap_or_default();
        let mut scratch = vec![0.0; scratch_len(widest)];
        for shard in rows {
            for site_rows in shard {
                if let Err(error) =
                    statistics[site_rows.site / workers].fold(&site_rows, &mut scratch)
                {
                    let layer = self.sites[site_rows.site].name.clone();
                    if let Ok(mut failure) = failure.lock() {
                        failure.get_or_insert(Stop::Solve {
                            layer,
                            reason: error.to_string(),
                        });
                    }
                    return;
                }
            }
        }
        drop(scratch);
        for ((site, _), statistics) in own().zip(statistics) {
            if finished.send(Finished { site, statistics }).is_err() {
                return; // All solvers ended; the caller reports why.
            }
        }
    }

    /// Solver: solves site after site.
    fn solve(&self, finished: &Receiver<Finished>, solved: &Sender<Solved>, failed: &AtomicBool) {
        for Finished { site, statistics } in finished {
            if failed.load(Ordering::SeqCst) {
                return;
            }
            let site = &self.sites[site];
            self.warn(site, &statistics);
            if solved.send(self.solver.solve(site, &statistics)).is_err() {
                return;
            }
        }
    }

    /// Caller: reports each layer as it comes and sorts them in the end.
    fn collect(&self, solved: &Receiver<Solved>, failed: &AtomicBool) -> Solved {
        let mut all = Vec::new();
        let mut stopped = None;
        for site in solved {
            match site {
                Ok(solutions) => {
                    for solution in solutions {
                        self.report(&solution);
                        self.reporter.step(&self.solver.layers[solution.layer].name);
                        all.push(solution);
                    }
                }
                Err(stop) => {
                    failed.store(true, Ordering::SeqCst);
                    stopped.get_or_insert(stop);
                }
            }
        }
        all.sort_by_key(|s| s.layer);
        stopped.map_or(Ok(all), Err)
    }
}

/// Splits a shard by the workers that own its sites; false when one of them is gone.
fn deal(shard: Shard, workers: &[Sender<Vec<SiteRows>>]) -> bool {
    let mut parts: Vec<Vec<SiteRows>> = workers.iter().map(|_| Vec::new()).collect();
    for rows in shard.sites {
        parts[rows.site % workers.len()].push(rows);
    }
    parts
        .into_iter()
        .zip(workers)
        .all(|(part, worker)| part.is_empty() || worker.send(part).is_ok())
}

/// A thread of the scope whose panic becomes an error.
struct Running<'scope, T> {
    name: &'static str,
    handle: ScopedJoinHandle<'scope, T>,
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<Running<'scope, T>, Stop> {
    let handle = Builder::new()
        .name(name.into())
        .spawn_scoped(scope, work)
        .map_err(Stop::io(std::path::Path::new(name), "start the thread"))?;
    Ok(Running { name, handle })
}

impl<T> Running<'_, T> {
    fn join(self) -> Result<T, Stop> {
        self.handle.join().map_err(|panic| Stop::Panicked {
            thread: self.name,
            message: panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default(),
        })
    }
}
