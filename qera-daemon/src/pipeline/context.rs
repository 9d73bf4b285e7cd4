//! What the run lends to every stage of the pipeline. What only one stage owns stands with that
//! stage.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::calibrate::imatrix::GivenStatistics;
use crate::disk::clock;
use crate::host::compute::Compute;
use crate::host::cores::{Core, Cores};
use crate::host::offload::accelerator::Accelerator;
use crate::observe::reporter::Reporter;
use crate::pipeline::flight::{Flight, Ticket};
use crate::pipeline::ingest_meter::IngestMeter;
use crate::pipeline::ledger::Ledger;
use crate::plan::summed_sites::SummedSites;
use crate::settings::Settings;
use crate::solve::site::SiteSolver;
use crate::source::watch::Wake;
use crate::weights::site_layers::SiteLayers;
use crate::weights::sites::Sites;

/// What the run lends to every stage.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The settings.
    pub(crate) settings: &'a Settings,
    /// The sites that the run began with; the feeder knows those that come later, where there is no
    /// checkpoint.
    pub(crate) sites: &'a Sites,
    /// Statistics that stand in for rows, where an imatrix was given.
    pub(crate) imatrix: Option<&'a GivenStatistics>,
    /// The sites whose rows a device sums.
    pub(crate) summed: SummedSites,
    /// The share of rows that is kept aside, for each site.
    pub(crate) scored_shares: Vec<f64>,
    /// Solves a site; `None` where there is no checkpoint.
    pub(crate) solver: Option<SiteSolver<'a>>,
    /// The cores that may be used.
    pub(crate) cores: &'a Cores,
    /// Where events go.
    pub(crate) reporter: &'a Reporter,
    /// The record of what was done so far.
    pub(crate) ledger: &'a Ledger<'a>,
    /// Whether sites are solved at their solve points.
    pub(crate) live: bool,
    /// The journal position of the current generation: a generation from an earlier one is not
    /// published.
    pub(crate) published_position: u64,
    /// Flags that end the run.
    pub(crate) flags: Flags<'a>,
    /// Ends the feeder's wait.
    pub(crate) wake: Option<Wake>,
    /// The shards in memory, which are bounded.
    pub(crate) flight: Flight,
    /// Measures what taking shards in costs.
    pub(crate) ingest: IngestMeter,
    /// Number of jobs that were sent and whose outcome the publisher has not seen yet.
    pub(crate) jobs_in_flight: AtomicUsize,
    /// The kinds of warnings that were said, each with its site.
    pub(crate) warned: Mutex<BTreeSet<String>>,
}

/// Room in memory for a shard, and a core to read it with.
#[derive(Debug)]
pub(crate) struct Boarded<'a> {
    /// Holds the room.
    pub(crate) ticket: Ticket,
    /// Holds the core.
    pub(crate) core: Core<'a>,
}

/// Flags that end the run. Every stage looks at them before it begins something.
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
    /// Flags of which none is set, unless a signal came.
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

    /// Waits for room for a shard of this many bytes, then for a core to read it with.
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

    /// The layers of a site that is solved.
    pub(crate) fn layers_of(&self, site: usize) -> Option<SiteLayers<'a>> {
        let solver = self.solver.as_ref()?;
        Some(solver.layers_of(self.sites.sites.get(site)?))
    }

    /// The kernels that compute.
    pub(crate) const fn compute(&self) -> Compute<'a> {
        Compute::new(self.settings.compute.kernel, self.cores)
    }

    /// The device that sums the rows of a site, if one does.
    pub(crate) fn summing_device(&self, site: usize) -> Option<Arc<Accelerator>> {
        let accelerator = self.settings.compute.device.accelerator();
        accelerator.filter(|_| self.summed.has(site)).cloned()
    }

    /// Whether the run goes on, because nothing says that it shall end.
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

    /// The flag that says that a stage has failed.
    pub(crate) fn failure(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flags.failed)
    }

    /// Notes that a stage has failed, so that no other begins something new.
    pub(crate) fn fail(&self) {
        self.flags.failed.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether the run ends because the layers have converged.
    pub(crate) fn converged(&self) -> bool {
        self.flags.converged.load(Ordering::SeqCst)
    }

    /// Notes that the layers have converged, so that the run ends.
    pub(crate) fn converge(&self) {
        self.flags.converged.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Ends the feeder's wait, because something happened that it looks at.
    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake.wake();
        }
    }
}
