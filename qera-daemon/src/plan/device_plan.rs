//! What a device takes of the work, site by site, and of its memory for it.

use core::fmt::Write as _;

use qera_gpu::shared_bytes;
use serde::Serialize;

use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::placement::SolvedWidths;
use crate::plan::planned_run::PlannedRun;
use crate::plan::stages::{largest, threads_with_sites};
use crate::plan::summed_sites::SummedSites;
use crate::settings::memory_budget::format_bytes;
use crate::weights::sites::Site;

/// Sites that are named.
const NAMED: usize = 4;

/// The device's part.
#[derive(Debug, Serialize)]
pub(crate) struct DevicePlan {
    /// The device.
    name: String,
    /// What of its memory may be used.
    memory_bytes: u64,
    /// What of that libraries are given to work in, whatever is computed.
    workspace_bytes: u64,
    /// Rows that are summed.
    summed: OnDevice,
    /// Inputs whose rows are summed here because the host has no room for those that are kept for
    /// the device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without_room: Vec<String>,
    /// Layers that are solved.
    solved: OnDevice,
    /// Layers that are still to be rounded under R; absent where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    rounded: Option<OnDevice>,
}

/// A kind of work.
#[derive(Debug, Serialize)]
struct OnDevice {
    /// The number of inputs of whose layers it is done there.
    inputs: usize,
    /// Those of which it is done here, by their first members.
    here: Vec<String>,
    /// Bytes of the device that it takes, at most.
    bytes: u64,
}

/// A site of which a kind of work is done somewhere.
struct PlacedSite<'a> {
    site: &'a Site,
    /// What it takes there; `None` where it is done here.
    bytes: Option<u64>,
}

impl DevicePlan {
    /// Of a run, where there is a device.
    pub(crate) fn new(run: &PlannedRun<'_>, summed: &SummedSites) -> Option<Self> {
        let accelerator = run.settings.compute.device.accelerator()?;
        let all = || run.sites.sites.iter();
        let by_solves = |sites: Vec<&Site>, rounds| {
            let bytes = |site: &Site| solve_bytes(run, accelerator, site, rounds);
            let sites = sites.into_iter().map(|site| PlacedSite {
                site,
                bytes: bytes(site),
            });
            // As many as there are threads, which wait for each other where that is too much.
            let at_once = |bytes| largest(bytes, threads_with_sites(run));
            OnDevice::of(sites, |bytes| {
                at_once(bytes).min(accelerator.shares.solving)
            })
        };
        let to_round: Vec<_> = all().filter(|site| is_to_be_rounded(run, site)).collect();
        let sums = all().enumerate();
        let sums = sums.map(|(index, site)| PlacedSite {
            site,
            bytes: summed.bytes_there(index, site),
        });
        let scratch = summed.scratch_bytes_there(run.sites);
        Some(Self {
            name: accelerator.name(),
            memory_bytes: accelerator.shares.all() + shared_bytes(0),
            workspace_bytes: shared_bytes(0),
            without_room: summed.without_room.clone(),
            summed: OnDevice::of(sums, |bytes| bytes.iter().sum::<u64>() + scratch),
            solved: by_solves(all().collect(), false),
            rounded: (!to_round.is_empty()).then(|| by_solves(to_round, true)),
        })
    }

    /// As a person reads it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let device = format!(
            "device: {}, of whose memory {} may be used, {} of that by its libraries",
            self.name,
            format_bytes(self.memory_bytes),
            format_bytes(self.workspace_bytes)
        );
        let rounded = self.rounded.as_ref();
        let parts = [
            Some(self.summed.line("rows are summed for")),
            Some(self.solved.line("layers are solved of")),
            rounded.map(|of| of.line("layers are rounded of")),
        ];
        let parts = parts.into_iter().flatten();
        let room = without_room(&self.without_room);
        [device].into_iter().chain(parts).chain(room).collect()
    }
}

/// That the host has no room for what these inputs have to do with a device; `None` without any.
pub(crate) fn without_room(inputs: &[String]) -> Option<String> {
    (!inputs.is_empty()).then(|| {
        format!(
            "rows are summed on the CPU of {}: the memory budget has no room for those that would \
             be kept for the device",
            named(inputs)
        )
    })
}

/// The first of some names, and how many there are beside them.
fn named(names: &[String]) -> String {
    let (named, more) = names.split_at(names.len().min(NAMED));
    match more.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

impl OnDevice {
    /// Of the inputs that have it; `together` adds up.
    fn of<'a>(
        sites: impl Iterator<Item = PlacedSite<'a>>,
        together: impl Fn(Vec<u64>) -> u64,
    ) -> Self {
        let (mut there, mut here) = (Vec::new(), Vec::new());
        for placed in sites {
            match placed.bytes {
                Some(bytes) => there.push(bytes),
                None => here.push(placed.site.name.clone()),
            }
        }
        Self {
            inputs: there.len(),
            here,
            bytes: together(there),
        }
    }

    fn line(&self, what: &str) -> String {
        let all = self.inputs + self.here.len();
        let mut line = format!("{what} {} of {all} inputs there", self.inputs);
        // Writing to a String cannot fail.
        if self.inputs > 0 {
            let _ = write!(line, " in {}", format_bytes(self.bytes));
        }
        if !self.here.is_empty() {
            let _ = write!(line, ", on the CPU {}", named(&self.here));
        }
        line
    }
}

/// Bytes that the layers of a site take on the device while one of them is solved, or rounded;
/// `None` where the host does it.
fn solve_bytes(
    run: &PlannedRun<'_>,
    accelerator: &Accelerator,
    site: &Site,
    rounds: bool,
) -> Option<u64> {
    let outputs = site.layers.iter();
    let outputs = outputs.map(|&layer| run.layers[layer].out_features);
    let widths = SolvedWidths {
        in_features: site.in_features,
        out_features: outputs.max()?,
        needs_r: site.second_moment.is_whole(),
        rounds,
    };
    let fits = |bytes: &u64| *bytes <= accelerator.shares.solving;
    let bytes = widths.is_worth(accelerator.least).then(|| widths.bytes());
    bytes.filter(fits)
}

/// Whether layers of a site are still to be rounded under its R.
fn is_to_be_rounded(run: &PlannedRun<'_>, site: &Site) -> bool {
    let is_made = |layer: usize| run.made.get(layer).is_some_and(Option::is_some);
    let mut layers = site.layers.iter();
    run.settings.rounding.rounding.uses_rows() && layers.any(|&layer| !is_made(layer))
}
