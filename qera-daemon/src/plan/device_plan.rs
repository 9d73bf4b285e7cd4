//! What a device takes of the work, site by site.

use serde::Serialize;

use crate::host::offload::accelerator::Accelerator;
use crate::host::offload::placement::SolvedWidths;
use crate::plan::planned_run::PlannedRun;
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
    /// Sites whose rows are summed there.
    summed: usize,
    /// Those that are summed on the host, by their first members.
    summed_here: Vec<String>,
    /// Sites whose layers are solved there.
    solved: usize,
    /// Those that are solved on the host, by their first members.
    solved_here: Vec<String>,
}

impl DevicePlan {
    /// Of a run, where there is a device.
    pub(crate) fn new(run: &PlannedRun<'_>) -> Option<Self> {
        let accelerator = run.settings.compute.device.accelerator()?;
        let summed = SummedSites::of(run.settings, run.sites);
        let named = |on_device: &dyn Fn(usize, &Site) -> bool| -> Vec<String> {
            let sites = run.sites.sites.iter().enumerate();
            let here = sites.filter(|(index, site)| !on_device(*index, site));
            here.map(|(_, site)| site.name.clone()).collect()
        };
        let summed_here = named(&|index, _| summed.has(index));
        let solved_here = named(&|_, site| is_solved_there(run, accelerator, site));
        let all = run.sites.sites.len();
        Some(Self {
            name: accelerator.name(),
            memory_bytes: accelerator.shares.solving + accelerator.shares.summing,
            summed: all - summed_here.len(),
            summed_here,
            solved: all - solved_here.len(),
            solved_here,
        })
    }

    /// As a person reads it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let part = |what: &str, count: usize, here: &[String]| {
            let all = count + here.len();
            let named = here[..here.len().min(NAMED)].join(", ");
            let more = match here.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            match here {
                [] => format!("{what} {count} of {all} inputs there"),
                _ => format!("{what} {count} of {all} inputs there, on the CPU {named}{more}"),
            }
        };
        vec![
            format!(
                "device: {}, of whose memory {} may be used",
                self.name,
                format_bytes(self.memory_bytes)
            ),
            part("rows are summed for", self.summed, &self.summed_here),
            part("layers are solved of", self.solved, &self.solved_here),
        ]
    }
}

/// Whether the layers of a site are solved on the device.
fn is_solved_there(run: &PlannedRun<'_>, accelerator: &Accelerator, site: &Site) -> bool {
    let outputs = site.layers.iter();
    let outputs = outputs.map(|&layer| run.layers[layer].out_features);
    outputs.max().is_some_and(|out_features| {
        let widths = SolvedWidths {
            in_features: site.in_features,
            out_features,
            needs_r: site.second_moment.is_whole(),
        };
        widths.is_worth(accelerator.least) && widths.bytes() <= accelerator.shares.solving
    })
}
