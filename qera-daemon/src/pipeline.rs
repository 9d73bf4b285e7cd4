//! The wiring: every thread, every channel, what happens when one is full and when one fails.
//!
//! | thread | number | takes | gives | channel | when it is full | when the thread fails |
//! |---|---|---|---|---|---|---|
//! | reader | 1 | shard files, by name | rows of each worker's sites | one per worker, 1 shard | the reader waits: files stay on disk | a refused shard is reported and skipped |
//! | worker | `threads`, at most one a site | rows of its own sites | finished statistics | `finished`, 1 site | the worker waits | nothing new is begun, the error is returned |
//! | solver | as many | finished statistics | solutions of a site | `solved`, 1 site | the solver waits | nothing new is begun, the error is returned, by layer |
//! | caller | 1 | solutions | the sorted list | | | |
//!
//! A site belongs to one worker (`assignment.rs`), which folds its rows in the order of the shards; a site is
//! solved by one thread. So no byte of the result depends on the number of threads. Workers hand a site over
//! when the last shard is folded and solvers sleep until then. Every worker is given its part of every shard,
//! empty or not, so at most [`SHARDS_IN_FLIGHT`] decoded shards exist: one being read, one queued, one being
//! folded.
//!
//! A failure or panic sets `failed`, which every stage looks at before it begins something; a panic also
//! closes that thread's channels, its neighbours then end, and it is reported as [`Stop::Panicked`]. The
//! first signal ends the reading after the shard in hand; what was folded is solved and published.

mod assignment;
mod report;

use core::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::calibrate::{SiteStatistics, scratch_len};
use crate::checkpoint::Sites;
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
    pub sites: &'a Sites,
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
    /// What became of the shards.
    pub reading: Reading,
}

/// What became of the shards.
#[derive(Debug, Default)]
pub struct Reading {
    /// Indices of the shards that gave rows.
    pub folded: Vec<usize>,
    /// Shards without a row for any selected layer.
    pub empty: usize,
    /// Messages of shards refused while they were read.
    pub refused: Vec<String>,
    /// Shards that a signal left unread.
    pub unread: usize,
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
        let owners = assignment::assign(&self.sites.sites, self.threads);
        // Set when a stage fails, so that no other begins something new.
        let failed = AtomicBool::new(false);
        let (failed, owners) = (&failed, &owners);
        std::thread::scope(|scope| {
            let (finished_in, finished) = bounded::<Finished>(1);
            let (solved_in, solved) = bounded::<Solved>(1);
            let mut row_inputs = Vec::new();
            let mut workers = Vec::new();
            let mut solvers = Vec::new();
            for own in owners {
                let (rows_in, rows) = bounded::<Vec<SiteRows>>(1);
                row_inputs.push(rows_in);
                let out = finished_in.clone();
                workers.push(spawn(scope, "worker", failed, move || {
                    let done = self.accumulate(own, &rows, &out, failed);
                    failed.fetch_or(done.is_err(), Ordering::SeqCst);
                    done
                })?);
                let (input, out) = (finished.clone(), solved_in.clone());
                solvers.push(spawn(scope, "solver", failed, move || {
                    self.solve(&input, &out, failed)
                })?);
            }
            // Only the threads hold the channels now, so that the end of one is seen by the next.
            drop((finished_in, finished, solved_in));
            let reader = spawn(scope, "reader", failed, move || {
                self.read(owners, &row_inputs, failed)
            })?;

            let solutions = self.collect(&solved, failed);
            let reading = reader.join();
            for worker in workers {
                worker.join()??;
            }
            for solver in solvers {
                solver.join()?;
            }
            Ok(Outcome {
                solutions: solutions?,
                reading: reading?,
            })
        })
    }

    /// Reader: decodes shard after shard and gives each worker the rows of its sites.
    fn read(
        &self,
        owners: &[Vec<usize>],
        workers: &[Sender<Vec<SiteRows>>],
        failed: &AtomicBool,
    ) -> Reading {
        let mut reading = Reading::default();
        for (index, admitted) in self.shards.iter().enumerate() {
            if self.stop.load(Ordering::SeqCst) || failed.load(Ordering::SeqCst) {
                reading.unread = self.shards.len() - index;
                break;
            }
            match read(admitted) {
                Ok(shard) => {
                    let (name, rows) = (shard.name.clone(), shard.rows);
                    if !deal(shard, owners, workers) {
                        break; // A worker ended early; the caller reports why.
                    }
                    if rows > 0 {
                        reading.folded.push(index);
                    } else {
                        reading.empty += 1;
                    }
                    let ignored_keys = admitted.ignored_keys;
                    self.reporter.say(&Event::ShardFolded {
                        shard: &name,
                        rows,
                        ignored_keys,
                    });
                }
                Err(refusal) => {
                    let message = refusal.to_string();
                    self.reporter.say(&Event::ShardQuarantined {
                        message: message.clone(),
                    });
                    reading.refused.push(message);
                }
            }
            self.reporter.step(&admitted.name);
        }
        reading
    }

    /// Worker: folds the rows of its sites, then hands the sites over.
    fn accumulate(
        &self,
        own: &[usize],
        rows: &Receiver<Vec<SiteRows>>,
        finished: &Sender<Finished>,
        failed: &AtomicBool,
    ) -> Result<(), Stop> {
        let sites = &self.sites.sites;
        let mut statistics: Vec<_> = own
            .iter()
            .map(|&s| SiteStatistics::new(sites[s].in_features))
            .collect();
        let widest = own
            .iter()
            .map(|&s| sites[s].in_features)
            .max()
            .unwrap_or_default();
        let mut scratch = vec![0.0; scratch_len(widest)];
        for site_rows in rows.iter().flatten() {
            let slot = own.binary_search(&site_rows.site).unwrap_or_default();
            statistics[slot]
                .fold(&site_rows, &mut scratch)
                .map_err(|error| Stop::Solve {
                    layer: sites[site_rows.site].name.clone(),
                    reason: error.to_string(),
                })?;
        }
        drop(scratch);
        for (&site, mut statistics) in own.iter().zip(statistics) {
            statistics.window.finish();
            if failed.load(Ordering::SeqCst)
                || finished.send(Finished { site, statistics }).is_err()
            {
                break; // Another stage failed; the caller reports why.
            }
        }
        Ok(())
    }

    /// Solver: solves site after site.
    fn solve(&self, finished: &Receiver<Finished>, solved: &Sender<Solved>, failed: &AtomicBool) {
        for Finished { site, statistics } in finished {
            if failed.load(Ordering::SeqCst) {
                return;
            }
            let site = &self.sites.sites[site];
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
fn deal(mut shard: Shard, owners: &[Vec<usize>], workers: &[Sender<Vec<SiteRows>>]) -> bool {
    owners.iter().zip(workers).all(|(own, worker)| {
        let part = shard
            .sites
            .extract_if(.., |rows| own.binary_search(&rows.site).is_ok())
            .collect();
        worker.send(part).is_ok()
    })
}

/// A thread of the scope whose panic becomes an error.
struct Running<'scope, T> {
    name: &'static str,
    handle: ScopedJoinHandle<'scope, T>,
}

/// Sets the flag when the thread that holds it panics.
struct PanicFlag<'a>(&'a AtomicBool);

impl Drop for PanicFlag<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(std::thread::panicking(), Ordering::SeqCst);
    }
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &'static str,
    failed: &'scope AtomicBool,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<Running<'scope, T>, Stop> {
    let handle = Builder::new()
        .name(name.into())
        .spawn_scoped(scope, move || {
            let _flag = PanicFlag(failed);
            work()
        })
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
