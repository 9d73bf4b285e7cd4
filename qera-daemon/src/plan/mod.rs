//! What a run will need, before a thread starts: bytes per site, layer and stage, and the expected work.

pub(crate) mod table;

use std::collections::BTreeSet;

use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use serde::Serialize;

use crate::calibrate::aside::{ASIDE_ROWS, ASIDE_ROWS_PEAK, rows_kept, scored_share};
use crate::calibrate::window::{BlockSize, WINDOW_ROWS, WINDOW_ROWS_PEAK, block_size};
use crate::error::Fatal;
use crate::host::kernels::rank_update::scratch_bytes;
use crate::judge::held_out::SHRINKAGES;
use crate::judge::schedule::longest_wait;
use crate::settings::Settings;
use crate::settings::log_format::LogFormat;
use crate::settings::memory_budget::format_bytes;
use crate::settings::solve::Shrinkage;
use crate::solve::cost::Quantity;
use crate::source::admission::{Admitted, Entry};
use crate::source::refusal::Reason;
use crate::weights::layers::Layer;
use crate::weights::sites::{Site, Sites};

/// What a process of this program takes beside that, measured: the libraries' data, messages, pieces of files on their way,
/// gaps that the allocator leaves.
const PROCESS_BYTES: u64 = 6 << 20;
/// And for each of `--threads`, measured: a stack, and what faer's matrix products pack once and keep.
const THREAD_BYTES: u64 = 4 << 20;
/// Decoded shards that exist at one time: one being read, one queued, one being folded. `pipeline` keeps to it.
const SHARDS_IN_FLIGHT: usize = 3;
/// The stage of the shards in flight.
const SHARDS: usize = 0;

/// The plan of a run: what exists at one time. It is meant to be met, not only to be kept: the peak of a run whose shards are
/// like those that are there is within a tenth of it (`tests/tests/memory.rs`). With several threads that takes that their
/// largest solves meet; where they do not, the plan is above the peak by what one has more than the other.
#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    /// Memory that lives as long as a site's statistics.
    pub(crate) sites: Vec<SitePlan>,
    /// Memory and work of one layer's solve.
    pub(crate) layers: Vec<LayerPlan>,
    /// Memory of each stage.
    pub(crate) stages: Vec<Stage>,
    /// Planned peak of a run over the shards that are there: the stages that are always there, and those of reading and of solving, or, with `--once`, the larger of
    /// the two: nothing is read any more when it solves.
    pub(crate) total_bytes: u64,
    /// The same however many such shards come: what the budget has to hold. Without shards both are the same.
    pub(crate) bound_bytes: u64,
    /// Floating-point operations of accumulating every row.
    pub(crate) accumulate_flops: f64,
    /// Floating-point operations of all solves, about.
    pub(crate) solve_flops: f64,
    #[serde(skip)]
    live: bool,
}

/// One site.
#[derive(Debug, Serialize)]
pub(crate) struct SitePlan {
    /// First member.
    pub(crate) name: String,
    /// Width.
    pub(crate) in_features: usize,
    /// Rows that the shards announce.
    pub(crate) rows: u64,
    /// R and the per-channel statistics.
    pub(crate) statistics_bytes: u64,
    /// Held-out rows.
    pub(crate) window_bytes: u64,
    /// In a live run: rows kept aside to score corrections.
    pub(crate) aside_bytes: u64,
    /// Both, however many rows come.
    pub(crate) rows_bound_bytes: u64,
    #[serde(skip)]
    scratch_bytes: u64,
}

/// What a plan depends on beside the sites and shards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Whether R is gathered.
    pub(crate) keeps_r: bool,
    /// Whether sites are solved while rows are folded.
    pub(crate) live: bool,
    /// Whether it continues from rows of earlier shards.
    pub(crate) resumed: bool,
}

impl Extent {
    /// Of a run that begins anew.
    #[must_use]
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            keeps_r: settings.solve.method.needs_r(),
            live: !settings.convergence.is_once() && settings.weights.checkpoint.is_some(),
            resumed: false,
        }
    }
}

/// One layer.
#[derive(Debug, Serialize)]
pub(crate) struct LayerPlan {
    /// Module path.
    pub(crate) name: String,
    /// Rank to solve for.
    pub(crate) rank: usize,
    /// Working memory while it is solved.
    pub(crate) solve_bytes: u64,
    /// Its factors, kept until publication.
    pub(crate) factor_bytes: u64,
    /// What a live run carries from one solve point to the next.
    pub(crate) progress_bytes: u64,
    /// Operations, about.
    pub(crate) solve_flops: f64,
}

/// When memory is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum When {
    /// From the first row to the end.
    Always,
    /// While shards are read and folded.
    Reading,
    /// While layers are solved and published.
    Solving,
}

impl When {
    const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Reading => "reading",
            Self::Solving => "solving",
        }
    }
}

/// One stage.
#[derive(Debug, Serialize)]
pub(crate) struct Stage {
    /// Name.
    pub(crate) name: &'static str,
    /// When it is there.
    pub(crate) when: When,
    /// Bytes.
    pub(crate) bytes: u64,
    /// However many shards come.
    pub(crate) bound_bytes: u64,
}

impl Plan {
    /// Adds everything up.
    #[must_use]
    pub(crate) fn new(
        settings: &Settings,
        layers: &[Layer],
        layout: &Sites,
        shards: &[Admitted],
        extent: Extent,
    ) -> Self {
        let sites: Vec<_> = (0..layout.sites.len())
            .map(|site| SitePlan::new(settings, (layout, site), layers, shards, extent))
            .collect();
        let layers: Vec<_> = layers
            .iter()
            .map(|l| LayerPlan::new(settings, l, extent))
            .collect();
        let stages = stages(settings, layout, (&sites, &layers), shards, extent);
        Self {
            total_bytes: total(&stages, extent.live, |s| s.bytes),
            bound_bytes: total(&stages, extent.live, |s| s.bound_bytes),
            accumulate_flops: if extent.keeps_r {
                let site = |s: &SitePlan| s.rows as f64 * (s.in_features as f64).powi(2);
                sites.iter().map(site).sum()
            } else {
                0.0
            },
            solve_flops: layers.iter().map(|l| l.solve_flops).sum(),
            sites,
            layers,
            stages,
            live: extent.live,
        }
    }

    /// Whether a shard that came later can be decoded within the budget; the plan is for those that were there.
    ///
    /// # Errors
    /// [`Reason::TooLarge`].
    pub(crate) fn admits(&self, settings: &Settings, shard: &Admitted) -> Result<(), Reason> {
        let needed = SHARDS_IN_FLIGHT as u64 * held_bytes(shard);
        let planned = self.stages[SHARDS].bytes;
        let beside = |s: &Stage| s.when != When::Solving || self.live;
        let beside: u64 = self.stages[SHARDS + 1..]
            .iter()
            .filter(|s| beside(s))
            .map(|s| s.bound_bytes)
            .sum();
        let left = settings.compute.memory_budget.bytes.saturating_sub(beside);
        if needed <= planned.max(left) {
            return Ok(());
        }
        Err(Reason::TooLarge {
            needed: format_bytes(needed),
            left: format_bytes(left),
        })
    }

    /// Whether these sites can be gathered within the budget, where there is no checkpoint and modules come with the
    /// shards.
    ///
    /// # Errors
    /// [`Reason::TooLarge`].
    pub(crate) fn holds(
        &self,
        settings: &Settings,
        layout: &Sites,
        keeps_r: bool,
    ) -> Result<(), Reason> {
        let extent = Extent {
            keeps_r,
            live: false,
            resumed: true,
        };
        let bytes = |site| {
            let plan = SitePlan::new(settings, (layout, site), &[], &[], extent);
            (
                plan.statistics_bytes + plan.rows_bound_bytes,
                plan.scratch_bytes,
            )
        };
        let sites: Vec<_> = (0..layout.sites.len()).map(bytes).collect();
        let scratch = sites.iter().map(|(_, scratch)| *scratch);
        let needed = sites.iter().map(|(held, _)| held).sum::<u64>()
            + largest(scratch.collect(), settings.compute.threads);
        let shards = self.stages[SHARDS].bytes + process_bytes(settings);
        let left = settings.compute.memory_budget.bytes.saturating_sub(shards);
        if needed <= left {
            return Ok(());
        }
        Err(Reason::TooLarge {
            needed: format_bytes(needed),
            left: format_bytes(left),
        })
    }

    /// Refuses what does not fit the budget.
    ///
    /// # Errors
    /// [`Fatal::OverBudget`].
    pub(crate) fn check(&self, settings: &Settings) -> Result<(), Fatal> {
        let budget = &settings.compute.memory_budget;
        if self.bound_bytes <= budget.bytes {
            return Ok(());
        }
        Err(Fatal::OverBudget {
            needed: format_bytes(self.bound_bytes),
            budget: format_bytes(budget.bytes),
            origin: budget.origin.clone(),
        })
    }

    /// The plan as `--log-format` asks: a table, or one JSON object.
    #[must_use]
    pub(crate) fn text(&self, settings: &Settings) -> String {
        match settings.log_format {
            LogFormat::Text => self.table(settings),
            LogFormat::Json => serde_json::to_string(self).unwrap_or_default() + "\n",
        }
    }
}

impl SitePlan {
    fn new(
        settings: &Settings,
        (layout, index): (&Sites, usize),
        layers: &[Layer],
        shards: &[Admitted],
        extent: Extent,
    ) -> Self {
        let site = &layout.sites[index];
        // Several keys of one site in a shard count once.
        let entries: Vec<&Entry> = shards.iter().filter_map(|s| s.entry_of(index)).collect();
        let rows: u64 = entries.iter().map(|entry| entry.rows as u64).sum();
        let m = site.in_features;
        let packed = if extent.keeps_r { packed_len(m) } else { 0 };
        let blocks = entries.iter().map(|e| block_size(e.rows, e.sequences));
        let none = BlockSize {
            rows: 1,
            waiting: WINDOW_ROWS_PEAK - WINDOW_ROWS,
        };
        let BlockSize {
            rows: block,
            waiting,
        } = blocks.max().unwrap_or(none);
        let most = WINDOW_ROWS / block * block + waiting;
        // Some is there in a run that continues; more may come to a live one.
        let known = !entries.is_empty() && !extent.resumed;
        let held = if known {
            most.min(usize::try_from(rows).unwrap_or(usize::MAX))
        } else {
            most
        };
        let (aside, aside_most) = if extent.live {
            let sizes = site.layers.iter().map(|&l| &layers[l]);
            let share = scored_share(m, sizes.map(|l| (l.out_features, l.rank)));
            let wait = longest_wait(m, entries.iter().map(|e| e.rows as u64));
            let most = if settings.convergence.closes_sites() {
                ASIDE_ROWS_PEAK
            } else {
                ASIDE_ROWS
            };
            let kept = if known {
                rows_kept(wait, block, share)
            } else {
                most
            };
            (kept, most)
        } else {
            (0, 0)
        };
        let held_most = if extent.live { most } else { held };
        let in_pairs = |entry: &&Entry| {
            settings.compute.kernel.multiplies_bf16() && entry.dtype == FloatDtype::Bf16
        };
        let scratch = entries
            .iter()
            .map(|entry| scratch_bytes(m, entry.rows, in_pairs(entry)))
            .max()
            .unwrap_or_else(|| scratch_bytes(m, usize::MAX, false));
        Self {
            name: site.name.clone(),
            in_features: m,
            rows,
            statistics_bytes: 8 * (packed + 5 * m) as u64,
            window_bytes: (held * 4 * m) as u64,
            aside_bytes: (aside * 4 * m) as u64,
            rows_bound_bytes: ((held_most + aside_most) * 4 * m) as u64,
            scratch_bytes: if extent.keeps_r { scratch as u64 } else { 0 },
        }
    }
}

impl LayerPlan {
    fn new(settings: &Settings, layer: &Layer, extent: Extent) -> Self {
        let (m, n, rank) = (layer.in_features, layer.out_features, layer.rank);
        let quantity = Quantity {
            m,
            n,
            rank,
            full: settings.solve.method.needs_r(),
            keeps_r: extent.keeps_r,
            candidates: candidates(settings),
            live: extent.live,
        };
        let factors = 4 * rank * (m + n);
        Self {
            name: layer.name.clone(),
            rank,
            solve_bytes: quantity.bytes(),
            factor_bytes: factors as u64,
            progress_bytes: (2 * factors + quantity.vector_bytes()) as u64,
            solve_flops: quantity.flops(),
        }
    }
}

/// What exists at one time, stage by stage.
fn stages(
    settings: &Settings,
    layout: &Sites,
    (sites, layers): (&[SitePlan], &[LayerPlan]),
    shards: &[Admitted],
    extent: Extent,
) -> Vec<Stage> {
    let threads = settings.compute.threads;
    // Every thread at its largest site at once.
    let scratch = sites.iter().map(|s| s.scratch_bytes).collect();
    let solves = |site: &Site| {
        let layers = site.layers.iter().map(|&l| layers[l].solve_bytes);
        layers.max().unwrap_or_default()
    };
    let solves = layout.sites.iter().map(solves).collect();
    let in_flight = if extent.live {
        SHARDS_IN_FLIGHT
    } else {
        SHARDS_IN_FLIGHT.min(shards.len())
    };
    let shard = shards.iter().map(held_bytes).max().unwrap_or_default();
    let of_sites = |of: fn(&SitePlan) -> u64| sites.iter().map(of).sum::<u64>();
    let of_layers = |of: fn(&LayerPlan) -> u64| layers.iter().map(of).sum::<u64>();
    let stage = |name, when, bytes| Stage {
        name,
        when,
        bytes,
        bound_bytes: bytes,
    };
    let mut stages = vec![
        stage("shards in flight", When::Reading, in_flight as u64 * shard),
        stage(
            "accumulation scratch, all threads",
            When::Reading,
            largest(scratch, threads),
        ),
        stage("the process", When::Always, process_bytes(settings)),
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
                of_sites(|s| s.window_bytes + s.aside_bytes),
            )
        },
        stage(
            "solving, all threads",
            When::Solving,
            largest(solves, threads),
        ),
        stage(
            "factors of all layers",
            When::Solving,
            of_layers(|l| l.factor_bytes),
        ),
    ];
    if extent.live {
        stages.push(stage(
            "corrections and vectors of solve points",
            When::Always,
            of_layers(|l| l.progress_bytes),
        ));
    }
    stages
}

/// The planned peak.
fn total(stages: &[Stage], live: bool, bytes: fn(&Stage) -> u64) -> u64 {
    let sum = |when| {
        let of = stages.iter().filter(|s| s.when == when);
        of.map(bytes).sum::<u64>()
    };
    let (reading, solving) = (sum(When::Reading), sum(When::Solving));
    let both = if live {
        reading + solving
    } else {
        reading.max(solving)
    };
    sum(When::Always) + both
}

/// The sum of the largest `count` of them.
fn largest(mut bytes: Vec<u64>, count: usize) -> u64 {
    bytes.sort_unstable_by(|a, b| b.cmp(a));
    bytes.iter().take(count).sum()
}

const fn process_bytes(settings: &Settings) -> u64 {
    PROCESS_BYTES + settings.compute.threads as u64 * THREAD_BYTES
}

/// Candidates that are scored on the window, in each fold.
const fn candidates(settings: &Settings) -> usize {
    match settings.solve.shrinkage {
        Shrinkage::Auto if settings.solve.method.shrinks() => SHRINKAGES.len(),
        _ => 1,
    }
}

/// What is held of a shard until it is folded: one entry for each site, and, while it is read, one that repeats a site.
fn held_bytes(shard: &Admitted) -> u64 {
    let mut sites = BTreeSet::new();
    let (mut held, mut repeated) = (0, 0);
    for entry in &shard.entries {
        if sites.insert(entry.site) {
            held += entry.stored_bytes();
        } else {
            repeated = repeated.max(entry.stored_bytes());
        }
    }
    held + repeated
}
