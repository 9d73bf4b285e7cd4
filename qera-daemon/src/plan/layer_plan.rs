//! What a layer needs while it is solved, and afterwards.

use serde::Serialize;

use crate::host::factor_type::FactorType;
use crate::judge::held_out::SHRINKAGES;
use crate::plan::planned_run::PlannedRun;
use crate::plan::rounding_plan::RoundingPlan;
use crate::plan::site_plan::SitePlan;
use crate::settings::Settings;
use crate::settings::solve::Shrinkage;
use crate::solve::cost::Quantity;
use crate::weights::Weights;
use crate::weights::given::read_tensor::ReadTensor;
use crate::weights::sites::Site;

/// The memory and work of one layer.
#[derive(Debug, Serialize)]
pub(crate) struct LayerPlan {
    /// Module path.
    pub(crate) name: String,
    /// Rank to solve for.
    pub(crate) rank: usize,
    /// Working memory while it is solved, for the shards that are there.
    pub(crate) solve_bytes: u64,
    /// An upper bound of `solve_bytes`, however many shards come.
    #[serde(skip)]
    pub(crate) solve_bound_bytes: u64,
    /// Bytes of its factors, which are kept until publication.
    pub(crate) factor_bytes: u64,
    /// Bytes of the factors as they are written, unless they lose too much in the asked type.
    pub(crate) written_bytes: u64,
    /// Bytes that a live run carries from one solve point to the next.
    pub(crate) progress_bytes: u64,
    /// Operations of its solve, about.
    pub(crate) solve_flops: f64,
    /// W~ as it was read; absent where W~ is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) read: Option<ReadTensor>,
    /// How W~ is made, where that takes R.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rounding: Option<RoundingPlan>,
}

impl LayerPlan {
    /// The plan of a site's layer.
    #[must_use]
    pub(crate) fn new(run: &PlannedRun<'_>, index: usize, site: &Site, planned: &SitePlan) -> Self {
        let layer = &run.layers[index];
        let (m, n, rank) = (layer.in_features, layer.out_features, layer.rank);
        let needs_r = run.settings.solve.method.needs_r();
        let quantity = Quantity {
            m,
            n,
            rank,
            full: needs_r && site.sketch.is_none(),
            sketch: site.sketch.as_ref().filter(|_| needs_r).map(|of| of.kept),
            second_moment: site.second_moment,
            widened_bytes: planned.widened_bytes,
            fold_rows: planned.fold_rows,
            candidates: candidates(run.settings),
            in_blocks: run.settings.solve.factor_dtype == FactorType::Q8_0,
            live: run.solving.is_live(),
        };
        let bound = Quantity {
            fold_rows: planned.fold_rows_bound,
            ..quantity
        };
        let factors = 4 * rank * (m + n);
        let dtype = run.settings.solve.factor_dtype;
        let given = run.weights.and_then(Weights::given);
        Self {
            name: layer.name.clone(),
            rank,
            solve_bytes: quantity.bytes(),
            solve_bound_bytes: bound.bytes(),
            factor_bytes: factors as u64,
            written_bytes: dtype.for_width(m).bytes(m, n, rank) as u64,
            progress_bytes: (2 * factors + quantity.vector_bytes()) as u64,
            solve_flops: quantity.flops(),
            read: given.map(|of| of.layers[index].described()),
            rounding: RoundingPlan::new(run, index, quantity),
        }
    }

    /// Working memory while it is solved or rounded, whichever is more: a thread does one of them
    /// at a time.
    #[must_use]
    pub(crate) fn peak_bytes(&self) -> u64 {
        let rounding = self.rounding.as_ref().map_or(0, |plan| plan.round_bytes);
        self.solve_bytes.max(rounding)
    }

    /// Operations of rounding it.
    #[must_use]
    pub(crate) fn round_flops(&self) -> f64 {
        self.rounding.as_ref().map_or(0.0, |plan| plan.round_flops)
    }
}

/// How many candidates are scored on the window in each fold.
const fn candidates(settings: &Settings) -> usize {
    match settings.solve.shrinkage {
        Shrinkage::Auto if settings.solve.method.shrinks() => SHRINKAGES.len(),
        _ => 1,
    }
}
