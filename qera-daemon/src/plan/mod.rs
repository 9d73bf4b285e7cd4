//! What a run will need, before a thread starts: bytes per site, layer and stage, and the expected
//! work.

pub(crate) mod choices;
pub(crate) mod device_plan;
pub(crate) mod gathering;
pub(crate) mod imatrix_plan;
pub(crate) mod layer_plan;
pub(crate) mod model_plan;
pub(crate) mod planned_run;
pub(crate) mod rounding_plan;
pub(crate) mod site_plan;
pub(crate) mod stages;
pub(crate) mod sum;
pub(crate) mod summed_sites;
pub(crate) mod table;

use serde::Serialize;

use crate::error::Fatal;
use crate::plan::choices::StatisticsChoice;
use crate::plan::device_plan::DevicePlan;
use crate::plan::gathering::holds;
use crate::plan::imatrix_plan::ImatrixPlan;
use crate::plan::layer_plan::LayerPlan;
use crate::plan::model_plan::ModelPlan;
use crate::plan::planned_run::{PlannedRun, Solving};
use crate::plan::site_plan::SitePlan;
use crate::plan::stages::{
    SHARDS, SHARDS_IN_FLIGHT, Stage, When, flying_bytes, held_bytes, stages, total,
};
use crate::plan::sum::sum;
use crate::plan::summed_sites::SummedSites;
use crate::settings::Settings;
use crate::settings::log_format::LogFormat;
use crate::settings::memory_budget::format_bytes;
use crate::source::admission::Admitted;
use crate::source::refusal::Reason;
use crate::weights::sites::Sites;

/// The plan of a run: what exists at one time. It is meant as an estimate and not only as a limit:
/// if further shards are like those that are there, the run's peak is within a tenth of the plan
/// (`tests/tests/memory/`). The plan for several threads assumes that their largest solves run at
/// the same time. Where they do not, the peak is lower by the difference.
#[derive(Debug, Serialize)]
pub(crate) struct Plan {
    /// The model; null where statistics are only gathered.
    pub(crate) model: Option<ModelPlan>,
    /// Memory that is needed as long as a site's statistics.
    pub(crate) sites: Vec<SitePlan>,
    /// Memory and work of one layer's solve.
    pub(crate) layers: Vec<LayerPlan>,
    /// Memory of each stage.
    pub(crate) stages: Vec<Stage>,
    /// The planned peak for the shards that are there. Some stages are always there; to these come
    /// reading and solving, or with `--once` the larger of the two, because nothing is read any
    /// more when it solves.
    pub(crate) total_bytes: u64,
    /// The planned peak however many such shards come, which the budget has to hold. Without shards
    /// both are the same.
    pub(crate) bound_bytes: u64,
    /// Number of shards that are there and fit.
    pub(crate) shards: usize,
    /// Number of those that the state holds already, so that there is no work with them.
    pub(crate) shards_held: usize,
    /// Floating-point operations of accumulating every row.
    pub(crate) accumulate_flops: f64,
    /// Floating-point operations of all solves, about.
    pub(crate) solve_flops: f64,
    /// Floating-point operations of rounding under R what is not rounded yet, about.
    pub(crate) round_flops: f64,
    /// What a device takes of it; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<DevicePlan>,
    /// Why devices that were tried are not used; absent where none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_refused: Option<String>,
    /// The imatrix that stands in for rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) imatrix: Option<ImatrixPlan>,
    /// What could be gathered; empty where nobody asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) choices: Vec<StatisticsChoice>,
    /// The sites whose rows a device sums.
    #[serde(skip)]
    pub(crate) summed: SummedSites,
    #[serde(skip)]
    solving: Solving,
}

impl Plan {
    /// Adds everything up.
    #[must_use]
    pub(crate) fn new(run: &PlannedRun<'_>) -> Self {
        let sites: Vec<_> = (0..run.sites.sites.len())
            .map(|site| SitePlan::new(run, site))
            .collect();
        let mut layers: Vec<Option<LayerPlan>> = run.layers.iter().map(|_| None).collect();
        for (site, plan) in run.sites.sites.iter().zip(&sites) {
            for &layer in &site.layers {
                layers[layer] = Some(LayerPlan::new(run, layer, site, plan));
            }
        }
        // Every layer has a site.
        let layers: Vec<LayerPlan> = layers.into_iter().flatten().collect();
        let device = &run.settings.compute.device;
        let budget = run.settings.compute.memory_budget.bytes;
        let bound = |stages: &[Stage]| total(stages, run.solving, |s| s.bound_bytes);
        let mut summed = SummedSites::of(run.settings, run.sites);
        let mut stages = stages(run, &sites, &layers, &summed);
        // The device is asked for less until the host has room for the rest.
        while device.may_do_without()
            && bound(&stages) > budget
            && let Some(smaller) = summed.smaller(run.sites)
        {
            summed = smaller;
            stages = self::stages(run, &sites, &layers, &summed);
        }
        Self {
            model: run.weights.map(|of| ModelPlan::new(of, run.settings)),
            total_bytes: total(&stages, run.solving, |s| s.bytes),
            bound_bytes: bound(&stages),
            shards: run.shards.len() + run.held.len(),
            shards_held: run.held.len(),
            accumulate_flops: sites.iter().map(|s| s.accumulate_flops).sum(),
            solve_flops: layers.iter().map(|l| l.solve_flops).sum(),
            round_flops: layers.iter().map(LayerPlan::round_flops).sum(),
            sites,
            layers,
            stages,
            device: DevicePlan::new(run, &summed),
            device_refused: device.refused(),
            summed,
            imatrix: None,
            choices: Vec::new(),
            solving: run.solving,
        }
    }

    /// Checks that a shard that came after the plan was made can be decoded within the budget.
    ///
    /// # Errors
    /// [`Reason::TooLarge`].
    pub(crate) fn admits(&self, settings: &Settings, shard: &Admitted) -> Result<(), Reason> {
        let needed = flying_bytes(held_bytes(shard), SHARDS_IN_FLIGHT);
        let planned = self.stages[SHARDS].bytes;
        let beside = |s: &Stage| s.when != When::Solving || self.solving.is_live();
        let others = self.stages[SHARDS + 1..].iter().filter(|s| beside(s));
        let beside = sum(others.map(|s| s.bound_bytes));
        let left = settings.compute.memory_budget.bytes.saturating_sub(beside);
        if needed <= planned.max(left) {
            return Ok(());
        }
        Err(Reason::TooLarge {
            needed: format_bytes(needed),
            left: format_bytes(left),
        })
    }

    /// Checks that these sites can be gathered together with the shards in flight, where there is
    /// no checkpoint and modules come with the shards.
    ///
    /// # Errors
    /// [`Reason::TooLarge`].
    pub(crate) fn holds(&self, settings: &Settings, layout: &Sites) -> Result<(), Reason> {
        holds(settings, layout, self.stages[SHARDS].bytes)
    }

    /// Refuses a plan that does not fit the budget.
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
