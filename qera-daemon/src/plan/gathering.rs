//! Whether inputs can be gathered that come with the shards, where there is no checkpoint.

use crate::calibrate::row_room::RowRoom;
use crate::plan::planned_run::{PlannedRun, Solving, Start};
use crate::plan::site_plan::SitePlan;
use crate::plan::stages::{largest, process_bytes};
use crate::plan::sum::sum;
use crate::settings::Settings;
use crate::settings::memory_budget::format_bytes;
use crate::source::refusal::Reason;
use crate::weights::sites::Sites;

/// Checks that these sites fit the budget together with this many bytes of shards.
///
/// # Errors
/// [`Reason::TooLarge`].
pub(crate) fn holds(settings: &Settings, layout: &Sites, shards: u64) -> Result<(), Reason> {
    let run = PlannedRun {
        settings,
        weights: None,
        layers: &[],
        made: &[],
        sites: layout,
        shards: &[],
        held: &[],
        room: RowRoom::of_sites(settings.compute.window_memory, layout),
        solving: Solving::AtTheEnd,
        start: Start::Continued,
    };
    let sites = (0..layout.sites.len()).map(|site| SitePlan::new(&run, site));
    let sites: Vec<SitePlan> = sites.collect();
    let statistics = sum(sites.iter().map(|s| s.statistics_bytes));
    let rows = sum(sites.iter().map(|s| s.rows_bound_bytes));
    let scratch = sites.iter().map(|s| s.scratch_bytes).collect();
    let scratch = largest(scratch, settings.compute.threads);
    let needed = sum([statistics, rows, scratch].into_iter());
    let beside = shards.saturating_add(process_bytes(&run));
    let left = settings.compute.memory_budget.bytes.saturating_sub(beside);
    if needed <= left {
        return Ok(());
    }
    Err(Reason::TooLarge {
        needed: format_bytes(needed),
        left: format_bytes(left),
    })
}
