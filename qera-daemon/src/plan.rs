//! What a run will need, before a thread starts: bytes per site, layer and stage, and the expected work.

use core::fmt::Write as _;

use qera_core::packed::packed_len;
use qera_core::reconstruct::Method;
use serde::Serialize;

use crate::calibrate::{ASIDE_ROWS_PEAK, WINDOW_ROWS_PEAK};
use crate::checkpoint::{Layer, Sites};
use crate::error::Stop;
use crate::kernels::scratch_bytes;
use crate::pipeline::{SHARDS_IN_FLIGHT, jobs_in_flight};
use crate::settings::{LogFormat, Settings, Shrinkage, Until, format_bytes};
use crate::solve::{Quantity, SHRINKAGES};
use crate::source::{Admitted, Entry, Reason};

/// The stage of the shards in flight.
const SHARDS: usize = 0;

/// The plan of a run.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Memory that lives as long as a site's statistics.
    pub sites: Vec<SitePlan>,
    /// Memory and work of one layer's solve.
    pub layers: Vec<LayerPlan>,
    /// Memory of each stage; they add up to `total_bytes`.
    pub stages: Vec<Stage>,
    /// Planned peak.
    pub total_bytes: u64,
    /// Floating-point operations of accumulating every row.
    pub accumulate_flops: f64,
    /// Floating-point operations of all solves, about.
    pub solve_flops: f64,
}

/// One site.
#[derive(Debug, Serialize)]
pub struct SitePlan {
    /// First member.
    pub name: String,
    /// Width.
    pub in_features: usize,
    /// Rows that the shards announce.
    pub rows: u64,
    /// R and the per-channel statistics.
    pub statistics_bytes: u64,
    /// Held-out rows, at most; in a live run the rows kept aside, too.
    pub window_bytes: u64,
}

/// What a plan depends on beside the sites and shards.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Whether R is gathered.
    pub keeps_r: bool,
    /// Whether sites are solved while rows are folded.
    pub live: bool,
    /// Whether it continues from rows of earlier shards.
    pub resumed: bool,
}

impl Extent {
    /// Of a run that begins anew.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            keeps_r: settings.method == Method::Exact,
            live: settings.until != Until::Once && settings.checkpoint.is_some(),
            resumed: false,
        }
    }
}

/// One layer.
#[derive(Debug, Serialize)]
pub struct LayerPlan {
    /// Module path.
    pub name: String,
    /// Rank to solve for.
    pub rank: usize,
    /// Working memory while it is solved.
    pub solve_bytes: u64,
    /// Its factors, kept until publication.
    pub factor_bytes: u64,
    /// What a live run carries from one solve point to the next.
    pub progress_bytes: u64,
    /// Operations, about.
    pub solve_flops: f64,
}

/// One stage.
#[derive(Debug, Serialize)]
pub struct Stage {
    /// Name.
    pub name: &'static str,
    /// Bytes.
    pub bytes: u64,
}

impl Plan {
    /// Adds everything up.
    #[must_use]
    pub fn new(
        settings: &Settings,
        layers: &[Layer],
        layout: &Sites,
        shards: &[Admitted],
        extent: Extent,
    ) -> Self {
        let sites: Vec<_> = (0..layout.sites.len())
            .map(|site| SitePlan::new(layout, site, shards, extent))
            .collect();
        let candidates = candidates(settings);
        let layers: Vec<_> = layers
            .iter()
            .map(|l| LayerPlan::new(l, settings.method, candidates))
            .collect();
        let stages = stages(settings, &sites, &layers, shards, extent);
        Self {
            total_bytes: stages.iter().map(|s| s.bytes).sum(),
            accumulate_flops: sites
                .iter()
                .map(|s| s.rows as f64 * (s.in_features as f64).powi(2))
                .sum(),
            solve_flops: layers.iter().map(|l| l.solve_flops).sum(),
            sites,
            layers,
            stages,
        }
    }

    /// Whether a shard that came later can be decoded within the budget; the plan is for those that were there.
    ///
    /// # Errors
    /// [`Reason::TooLarge`].
    pub fn admits(&self, settings: &Settings, shard: &Admitted) -> Result<(), Reason> {
        let needed = SHARDS_IN_FLIGHT as u64 * stored_bytes(shard);
        let planned = self.stages[SHARDS].bytes;
        let left = settings
            .memory_budget
            .bytes
            .saturating_sub(self.total_bytes - planned);
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
    pub fn holds(&self, settings: &Settings, layout: &Sites, keeps_r: bool) -> Result<(), Reason> {
        let extent = Extent {
            keeps_r,
            live: false,
            resumed: true,
        };
        let bytes = |site| {
            let plan = SitePlan::new(layout, site, &[], extent);
            plan.statistics_bytes + plan.window_bytes
        };
        let widest = layout.sites.iter().map(|s| s.in_features).max();
        let scratch = if keeps_r {
            scratch_bytes(widest.unwrap_or_default()) * settings.threads
        } else {
            0
        };
        let needed = (0..layout.sites.len()).map(bytes).sum::<u64>() + scratch as u64;
        let shards = self.stages[SHARDS].bytes;
        let left = settings.memory_budget.bytes.saturating_sub(shards);
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
    /// [`Stop::OverBudget`].
    pub fn check(&self, settings: &Settings) -> Result<(), Stop> {
        let budget = &settings.memory_budget;
        if self.total_bytes <= budget.bytes {
            return Ok(());
        }
        Err(Stop::OverBudget {
            needed: format_bytes(self.total_bytes),
            budget: format_bytes(budget.bytes),
            origin: budget.origin.clone(),
        })
    }

    /// The plan as `--log-format` asks: a table, or one JSON object.
    #[must_use]
    pub fn text(&self, settings: &Settings) -> String {
        match settings.log_format {
            LogFormat::Text => self.table(settings),
            LogFormat::Json => serde_json::to_string(self).unwrap_or_default() + "\n",
        }
    }

    fn table(&self, settings: &Settings) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut line = |s: core::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{s}");
        };
        line(format_args!(
            "{:<52} {:>8} {:>9} {:>12} {:>12}",
            "site", "width", "rows", "statistics", "held-out"
        ));
        for site in &self.sites {
            line(format_args!(
                "{:<52} {:>8} {:>9} {:>12} {:>12}",
                site.name,
                site.in_features,
                site.rows,
                format_bytes(site.statistics_bytes),
                format_bytes(site.window_bytes)
            ));
        }
        line(format_args!(
            "\n{:<52} {:>8} {:>12} {:>12} {:>9}",
            "layer", "rank", "solving", "factors", "GFlop"
        ));
        for layer in &self.layers {
            line(format_args!(
                "{:<52} {:>8} {:>12} {:>12} {:>9.2}",
                layer.name,
                layer.rank,
                format_bytes(layer.solve_bytes),
                format_bytes(layer.factor_bytes),
                layer.solve_flops / 1e9
            ));
        }
        line(format_args!("\n{:<52} {:>12}", "stage", "memory"));
        for stage in &self.stages {
            line(format_args!(
                "{:<52} {:>12}",
                stage.name,
                format_bytes(stage.bytes)
            ));
        }
        line(format_args!(
            "{:<52} {:>12}",
            "total",
            format_bytes(self.total_bytes)
        ));
        line(format_args!(
            "{:<52} {:>12}   ({})",
            "memory budget",
            format_bytes(settings.memory_budget.bytes),
            settings.memory_budget.origin
        ));
        line(format_args!(
            "work: {:.1} GFlop to accumulate, about {:.1} GFlop to solve",
            self.accumulate_flops / 1e9,
            self.solve_flops / 1e9
        ));
        text
    }
}

impl SitePlan {
    fn new(layout: &Sites, index: usize, shards: &[Admitted], extent: Extent) -> Self {
        let site = &layout.sites[index];
        // Several keys of one site in a shard count once.
        let rows: u64 = shards
            .iter()
            .filter_map(|s| s.entry_of(index))
            .map(|entry| entry.rows as u64)
            .sum();
        let m = site.in_features;
        let packed = if extent.keeps_r { packed_len(m) } else { 0 };
        // More may come to a live run, and some is there in one that continues.
        let held = if extent.live {
            WINDOW_ROWS_PEAK + ASIDE_ROWS_PEAK
        } else if extent.resumed {
            WINDOW_ROWS_PEAK
        } else {
            usize::try_from(rows)
                .unwrap_or(usize::MAX)
                .min(WINDOW_ROWS_PEAK)
        };
        Self {
            name: site.name.clone(),
            in_features: m,
            rows,
            statistics_bytes: 8 * (packed + 5 * m) as u64,
            window_bytes: (held * 4 * m) as u64,
        }
    }
}

impl LayerPlan {
    fn new(layer: &Layer, method: Method, candidates: usize) -> Self {
        let (m, n, rank) = (layer.in_features, layer.out_features, layer.rank);
        let quantity = Quantity {
            m,
            n,
            rank,
            full: method == Method::Exact,
            candidates,
        };
        Self {
            name: layer.name.clone(),
            rank,
            solve_bytes: quantity.bytes(),
            factor_bytes: 4 * (rank * (m + n)) as u64,
            progress_bytes: (2 * 4 * rank * (m + n) + 8 * n * (rank + 8)) as u64,
            solve_flops: quantity.flops(),
        }
    }
}

/// What exists at one time, stage by stage.
fn stages(
    settings: &Settings,
    sites: &[SitePlan],
    layers: &[LayerPlan],
    shards: &[Admitted],
    extent: Extent,
) -> Vec<Stage> {
    let threads = settings.threads as u64;
    let held = |s: &SitePlan| s.statistics_bytes + s.window_bytes;
    // While a site is solved its rows go on: the solver keeps what it began with.
    let copies = if extent.live {
        jobs_in_flight(settings.threads).min(sites.len()) as u64
            * sites.iter().map(held).max().unwrap_or_default()
    } else {
        0
    };
    let carried = |l: &LayerPlan| if extent.live { l.progress_bytes } else { 0 };
    let largest = |of: fn(&LayerPlan) -> u64| layers.iter().map(of).max().unwrap_or_default();
    let scratch = sites
        .iter()
        .map(|s| scratch_bytes(s.in_features) as u64)
        .max()
        .unwrap_or_default();
    let stage = |name, bytes| Stage { name, bytes };
    vec![
        stage(
            "shards in flight",
            SHARDS_IN_FLIGHT as u64 * shards.iter().map(stored_bytes).max().unwrap_or_default(),
        ),
        stage(
            "statistics of all sites",
            sites.iter().map(|s| s.statistics_bytes).sum(),
        ),
        stage(
            "held-out rows of all sites",
            sites.iter().map(|s| s.window_bytes).sum(),
        ),
        stage("copies of statistics being solved", copies),
        stage(
            "corrections and vectors of solve points",
            layers.iter().map(carried).sum(),
        ),
        stage(
            "accumulation scratch, all threads",
            threads.min(sites.len() as u64) * scratch * u64::from(extent.keeps_r),
        ),
        stage(
            "solving, all threads",
            threads.min(sites.len() as u64) * largest(|l| l.solve_bytes),
        ),
        stage(
            "factors of all layers",
            layers.iter().map(|l| l.factor_bytes).sum(),
        ),
    ]
}

/// Candidates that are scored on the window, in each fold.
const fn candidates(settings: &Settings) -> usize {
    match (settings.method, settings.shrinkage) {
        (Method::Exact, Shrinkage::Auto) => SHRINKAGES.len(),
        _ => 1,
    }
}

fn stored_bytes(shard: &Admitted) -> u64 {
    shard.entries.iter().map(Entry::stored_bytes).sum()
}
