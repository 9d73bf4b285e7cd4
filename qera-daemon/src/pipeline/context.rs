//! What every stage of the pipeline is lent. What only one stage owns stands with that stage.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use crate::calibrate::imatrix::GivenStatistics;
use crate::disk::clock;
use crate::host::compute::Compute;
use crate::host::cores::{Core, Cores};
use crate::observe::reporter::Reporter;
use crate::pipeline::flight::{Flight, Ticket};
use crate::pipeline::ingest_meter::IngestMeter;
use crate::pipeline::ledger::Ledger;
use crate::settings::Settings;
use crate::solve::site::SiteSolver;
use crate::source::watch::Wake;
use crate::weights::sites::Sites;

/// What every stage is lent.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The sites that the run began with; the feeder knows those that come later, where there is no
    /// checkpoint.
    pub(crate) sites: &'a Sites,
    /// What stands in for rows, where an imatrix was given.
    pub(crate) imatrix: Option<&'a GivenStatistics>,
    /// Rows kept aside, by site.
    pub(crate) scored_shares: Vec<f64>,
    /// Solves a site; `None` where there is no checkpoint.
    pub(crate) solver: Option<SiteSolver<'a>>,
    /// The cores that may be used.
    pub(crate) cores: &'a Cores,
    /// Where events go.
    pub(crate) reporter: &'a Reporter,
    /// What was done so far.
    pub(crate) ledger: &'a Ledger<'a>,
    /// Whether sites are solved at their solve points.
    pub(crate) live: bool,
    /// Journal position that the current generation has seen: none of an earlier one is published.
    pub(crate) published_position: u64,
    /// What ends the run.
    pub(crate) flags: Flags<'a>,
    /// Ends the feeder's wait.
    pub(crate) wake: Option<Wake>,
    /// The shards in memory.
    pub(crate) flight: Flight,
    /// What taking shards in takes.
    pub(crate) ingest: IngestMeter,
    /// Jobs that were sent and whose outcome the publisher has not seen.
    pub(crate) jobs_in_flight: AtomicUsize,
}

/// Room for a shard, and a core to read it with.
#[derive(Debug)]
pub(crate) struct Boarded<'a> {
    /// The room.
    pub(crate) ticket: Ticket,
    /// The core.
    pub(crate) core: Core<'a>,
}

/// What ends the run, looked at by every stage before it begins something.
#[derive(Debug)]
pub(crate) struct Flags<'a> {
    /// Set by the first signal.
    stopping: &'a AtomicBool,
    /// Set when a stage fails.
    failed: Arc<AtomicBool>,
    /// Set when the layers have converged and the run shall end.
    converged: AtomicBool,
}

impl<'a> Flags<'a> {
    /// None set but what the signals set.
    pub(crate) fn new(stopping: &'a AtomicBool) -> Self {
        Self {
            stopping,
            failed: Arc::default(),
            converged: AtomicBool::new(false),
        }
    }
}

impl<'a> Context<'a> {
    /// Waits for a core, and holds it until dropped.
    pub(crate) fn take_core(&self) -> Core<'_> {
        self.cores.take()
    }

    /// Waits for room for a shard of so many bytes, which the ticket holds, then for a core to read
    /// it with.
    pub(crate) fn board(&self, bytes: u64) -> Boarded<'_> {
        self.ingest.begin();
        let boarding = self.flight.board(bytes);
        self.ingest.boarded(bytes, &boarding);
        let begun = clock::now();
        let core = self.take_core();
        self.ingest.waited_for_workers(clock::since(begun));
        Boarded {
            ticket: boarding.ticket,
            core,
        }
    }

    /// Where it is computed.
    pub(crate) const fn compute(&self) -> Compute<'a> {
        Compute {
            kernel: self.settings.compute.kernel,
            cores: self.cores,
        }
    }

    /// Whether nothing says that the run shall end.
    pub(crate) fn going(&self) -> bool {
        !self.stopping() && !self.converged() && !self.failed()
    }

    /// Whether a signal came.
    pub(crate) fn stopping(&self) -> bool {
        self.flags.stopping.load(Ordering::SeqCst)
    }

    /// Whether a stage has failed.
    pub(crate) fn failed(&self) -> bool {
        self.flags.failed.load(Ordering::SeqCst)
    }

    /// What says that a stage has failed.
    pub(crate) fn failure(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flags.failed)
    }

    /// A stage fails: no other begins something new.
    pub(crate) fn fail(&self) {
        self.flags.failed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether the run ends because the layers have converged.
    pub(crate) fn converged(&self) -> bool {
        self.flags.converged.load(Ordering::SeqCst)
    }

    /// The layers have converged, and the run shall end.
    pub(crate) fn converge(&self) {
        self.flags.converged.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Ends the feeder's wait: something happened that it looks at.
    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake.wake();
        }
    }
}
