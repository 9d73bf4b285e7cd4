//! What exists at one time, stage by stage.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::plan::layer_plan::LayerPlan;
use crate::plan::planned_run::{PlannedRun, Solving};
use crate::plan::site_plan::SitePlan;
use crate::plan::sum::sum;
use crate::plan::summed_sites::SummedSites;
use crate::source::admission::Admitted;
use crate::weights::sites::Site;

/// What a process of this program takes beyond the planned stages, as measured: the libraries'
/// data, messages, pieces of files, gaps that the allocator leaves.
const PROCESS_BYTES: u64 = 3 << 20;
/// The same for each thread that can have a site: a stack, and what faer's matrix products pack
/// once and keep.
const THREAD_BYTES: u64 = 2 << 20;
/// The same for a live run, as measured: what it carries from one solve point to the next lies
/// between the arrays of the next solve, and leaves gaps there.
const LIVE_BYTES: u64 = 4 << 20;
/// The same for each further thread of `--threads`, which only helps with pieces of a product: a
/// stack.
const HELPER_BYTES: u64 = 32 << 10;
/// The share of a solve's memory that the allocator cannot use again, as measured, where such
/// helpers come and go: they leave small things between its arrays.
const HELPED_SHARE: u64 = 6;
/// How many decoded shards exist at one time: one being read, one queued, one being folded.
/// `pipeline` keeps to this.
pub(crate) const SHARDS_IN_FLIGHT: usize = 3;
/// The most bytes of these shards, unless one alone has more.
pub(crate) const FLIGHT_BYTES: u64 = 1 << 30;
/// The index of the stage of shards in flight.
pub(crate) const SHARDS: usize = 0;

/// When memory is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum When {
    /// The memory is taken from the first row to the end.
    Always,
    /// While shards are read and folded.
    Reading,
    /// While layers are solved and published.
    Solving,
}

impl When {
    /// The name in the plan.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Reading => "reading",
            Self::Solving => "solving",
        }
    }
}

/// A stage of memory.
#[derive(Debug, Serialize)]
pub(crate) struct Stage {
    /// The stage's name.
    pub(crate) name: &'static str,
    /// When the stage exists.
    pub(crate) when: When,
    /// Bytes for the shards that are there.
    pub(crate) bytes: u64,
    /// Bytes however many shards come.
    pub(crate) bound_bytes: u64,
}

/// The memory that exists at one time, stage by stage.
pub(crate) fn stages(
    run: &PlannedRun<'_>,
    sites: &[SitePlan],
    layers: &[LayerPlan],
    summed: &SummedSites,
) -> Vec<Stage> {
    let threads = threads_with_sites(run);
    // Counted as if every thread were at its largest site at the same time.
    let scratch = sites.iter().map(|s| s.scratch_bytes).collect();
    let solves = of_largest_sites(run, layers, |l| l.solve_bytes);
    let flying = shards_bytes(run);
    let of_sites = |of: fn(&SitePlan) -> u64| sum(sites.iter().map(of));
    let of_layers = |of: fn(&LayerPlan) -> u64| sum(layers.iter().map(of));
    let stage = |name, when, bytes| Stage {
        name,
        when,
        bytes,
        bound_bytes: bytes,
    };
    let mut stages = vec![
        stage("shards in flight", When::Reading, flying),
        stage(
            "accumulation scratch, all threads",
            When::Reading,
            largest(scratch, threads),
        ),
        stage("the process", When::Always, process_bytes(run)),
        stage(
            "statistics of all sites",
            When::Always,
            of_sites(|s| s.statistics_bytes),
        ),
        Stage {
            bound_bytes: of_sites(|s| s.rows_bound_bytes),
            ..stage(
                "rows held out and kept aside, all sites",
                When::Always,
                of_sites(|s| s.window_bytes.saturating_add(s.aside_bytes)),
            )
        },
        solving(run, layers, solves),
        stage(
            "factors of all layers",
            When::Solving,
            of_layers(|l| l.factor_bytes),
        ),
    ];
    let rounding = rounding_bytes(run, layers, solves);
    if rounding > 0 {
        stages.push(stage("rounding, beyond solving", When::Solving, rounding));
    }
    if sites.iter().any(|site| site.sketching_bytes > 0) {
        stages.push(Stage {
            bound_bytes: sketching_bytes(run, sites, layers, |l| l.solve_bound_bytes),
            ..stage(
                "sketching, all threads",
                When::Reading,
                sketching_bytes(run, sites, layers, |l| l.solve_bytes),
            )
        });
    }
    stages.extend(of_device(run, sites, summed));
    if run.solving.is_live() {
        stages.push(stage(
            "corrections and vectors of solve points",
            When::Always,
            of_layers(|l| l.progress_bytes),
        ));
    }
    stages
}

/// The stage of solving, where the largest solves at one time take `solves` bytes for the shards
/// that are there.
fn solving(run: &PlannedRun<'_>, layers: &[LayerPlan], solves: u64) -> Stage {
    let bound = of_largest_sites(run, layers, |l| l.solve_bound_bytes);
    Stage {
        name: "solving, all threads",
        when: When::Solving,
        bytes: solves + helped_bytes(run, solves),
        bound_bytes: bound + helped_bytes(run, bound),
    }
}

/// The memory of threads that work on the largest sites at the same time.
fn of_largest_sites(run: &PlannedRun<'_>, layers: &[LayerPlan], of: fn(&LayerPlan) -> u64) -> u64 {
    let of_site = |site: &Site| site.layers.iter().map(|&l| of(&layers[l])).max();
    let sites = run.sites.sites.iter();
    largest(sites.filter_map(of_site).collect(), threads_with_sites(run))
}

/// What folding rows into sketches takes: of a batch, which solves afterwards, all of it; of a live
/// run what is beyond the solves, because a core does one of both at a time.
fn sketching_bytes(
    run: &PlannedRun<'_>,
    sites: &[SitePlan],
    layers: &[LayerPlan],
    solving: fn(&LayerPlan) -> u64,
) -> u64 {
    let threads = threads_with_sites(run);
    let folds = sites.iter().map(|site| site.sketching_bytes);
    if !run.solving.is_live() {
        return largest(folds.collect(), threads);
    }
    let of_site = |site: &Site| site.layers.iter().map(|&l| solving(&layers[l])).max();
    let solves = run
        .sites
        .sites
        .iter()
        .map(|site| of_site(site).unwrap_or_default());
    let either = folds.zip(solves).map(|(fold, solve)| fold.max(solve));
    largest(either.collect(), threads) - of_largest_sites(run, layers, solving)
}

/// What rounding takes in addition to solving; a thread does one of them at a time.
fn rounding_bytes(run: &PlannedRun<'_>, layers: &[LayerPlan], solves: u64) -> u64 {
    let rounds = of_largest_sites(run, layers, LayerPlan::peak_bytes);
    let beyond = rounds + helped_bytes(run, rounds) - solves - helped_bytes(run, solves);
    let packed = |l: &LayerPlan| l.rounding.as_ref().map_or(0, |plan| plan.packed_bytes);
    let of_site = |site: &Site| site.layers.iter().map(|&l| packed(&layers[l])).sum();
    let packed = run.sites.sites.iter().map(of_site).collect();
    beyond + panels_of_helpers(run, layers) + largest(packed, threads_with_sites(run))
}

/// The planned peak.
pub(crate) fn total(stages: &[Stage], solving: Solving, bytes: fn(&Stage) -> u64) -> u64 {
    let of = |when| sum(stages.iter().filter(|s| s.when == when).map(bytes));
    let (read, solve) = (of(When::Reading), of(When::Solving));
    let both = if solving.is_live() {
        read.saturating_add(solve)
    } else {
        read.max(solve)
    };
    of(When::Always).saturating_add(both)
}

/// The sum of the `count` largest numbers.
pub(crate) fn largest(mut bytes: Vec<u64>, count: usize) -> u64 {
    bytes.sort_unstable_by(|a, b| b.cmp(a));
    sum(bytes.into_iter().take(count))
}

/// What a device that sums rows takes here: rows that are kept for it, and those on their way.
fn of_device(run: &PlannedRun<'_>, sites: &[SitePlan], summed: &SummedSites) -> Vec<Stage> {
    let pinned = summed.pinned_bytes(run.sites);
    if pinned == 0 {
        return Vec::new();
    }
    let on_their_way = Stage {
        name: "rows on their way to it",
        when: When::Always,
        bytes: pinned,
        bound_bytes: pinned,
    };
    vec![kept_for_device(run, sites, summed), on_their_way]
}

/// Rows that are kept until R comes down, of all threads, and R on its way.
fn kept_for_device(run: &PlannedRun<'_>, sites: &[SitePlan], summed: &SummedSites) -> Stage {
    let threads = threads_with_sites(run);
    let shards = run.shards.iter().map(held_bytes);
    // Each thread goes beyond it by one input of a shard.
    let most = shards.clone().max().unwrap_or_default();
    let bound = summed.kept_bytes() * threads as u64 + most;
    // A row is kept or still in flight.
    let there = bound.min(sum(shards).saturating_sub(shards_bytes(run)));
    let bound = if run.solving.is_live() { bound } else { there };
    let on_device = sites.iter().enumerate();
    let on_device = on_device.filter(|(index, _)| summed.has(*index));
    let returning = on_device.map(|(_, site)| site.statistics_bytes).collect();
    let returning = largest(returning, threads);
    Stage {
        name: "rows kept for the device",
        when: When::Reading,
        bytes: there.saturating_add(returning),
        bound_bytes: bound.saturating_add(returning),
    }
}

/// How many threads can have a site at one time: a site is folded by one worker and solved by one
/// solver.
pub(crate) fn threads_with_sites(run: &PlannedRun<'_>) -> usize {
    let sites = run.sites.sites.len().max(1);
    run.settings.compute.threads.min(sites)
}

/// How many threads only ever help others.
fn helpers(run: &PlannedRun<'_>) -> usize {
    run.settings.compute.threads - threads_with_sites(run)
}

/// The memory that helpers add to solves of this size.
fn helped_bytes(run: &PlannedRun<'_>, solves: u64) -> u64 {
    if helpers(run) > 0 {
        solves / HELPED_SHARE
    } else {
        0
    }
}

/// The memory that helpers take while they round columns of another thread's layer.
fn panels_of_helpers(run: &PlannedRun<'_>, layers: &[LayerPlan]) -> u64 {
    let panels = layers.iter().filter_map(|l| l.rounding.as_ref());
    let most = panels.map(|plan| plan.panel_bytes).max();
    helpers(run) as u64 * most.unwrap_or_default()
}

/// The memory that the process takes beyond what is planned.
pub(crate) fn process_bytes(run: &PlannedRun<'_>) -> u64 {
    let live = if run.solving.is_live() { LIVE_BYTES } else { 0 };
    PROCESS_BYTES
        + live
        + threads_with_sites(run) as u64 * THREAD_BYTES
        + helpers(run) as u64 * HELPER_BYTES
}

/// The bytes of shards in flight. A live run may get further shards like the largest one seen; any
/// other run has only those that are there.
fn shards_bytes(run: &PlannedRun<'_>) -> u64 {
    let sizes = |shards: &[Admitted]| shards.iter().map(held_bytes).collect::<Vec<_>>();
    if run.solving.is_live() {
        let seen = [sizes(run.shards), sizes(run.held)].concat();
        return flying_bytes(largest(seen, 1), SHARDS_IN_FLIGHT);
    }
    let most = largest(sizes(run.shards), 1);
    largest(sizes(run.shards), SHARDS_IN_FLIGHT).min(FLIGHT_BYTES.max(most))
}

/// The memory of a number of shards of this size that are held at one time.
pub(crate) fn flying_bytes(shard: u64, count: usize) -> u64 {
    shard
        .saturating_mul(count as u64)
        .min(FLIGHT_BYTES.max(shard))
}

/// The bytes of a shard that are held until it is folded: one entry for each site and, while it is
/// read, one that repeats a site.
pub(crate) fn held_bytes(shard: &Admitted) -> u64 {
    let mut sites = BTreeSet::new();
    let (mut held, mut repeated) = (0, 0);
    for entry in &shard.entries {
        if sites.insert(entry.site) {
            held = entry.stored_bytes().saturating_add(held);
        } else {
            repeated = repeated.max(entry.stored_bytes());
        }
    }
    let mut summed = BTreeSet::new();
    for sum in &shard.sums {
        if summed.insert(sum.site) {
            held = sum.stored_bytes().saturating_add(held);
        } else {
            repeated = repeated.max(sum.stored_bytes());
        }
    }
    repeated.saturating_add(held)
}
