//! What rounding a layer under R needs, when it will be rounded, and what is known of a W~ that is
//! made already.

use core::fmt::Write as _;

use serde::Serialize;

use crate::plan::Plan;
use crate::plan::planned_run::PlannedRun;
use crate::settings::Settings;
use crate::settings::memory_budget::format_bytes;
use crate::settings::rounding::{Rounding, RoundingSettings, RoundingShrinkage};
use crate::solve::cost::Quantity;
use crate::solve::rounding_cost::RoundingQuantity;
use crate::weights::frozen::record::{MeasuredRounding, RoundingRecord};

/// The rounding of a layer.
#[derive(Debug, Serialize)]
pub(crate) struct RoundingPlan {
    /// The number of rows in R when the layer is rounded; null where that is after all are folded.
    pub(crate) round_after: Option<u64>,
    /// Working memory while it is rounded, refits included; 0 where W~ is made already.
    pub(crate) round_bytes: u64,
    /// The part of it that each helping core adds.
    #[serde(skip)]
    pub(crate) panel_bytes: u64,
    /// Bytes of the packed W~, which is held until those of the whole site are made.
    #[serde(skip)]
    pub(crate) packed_bytes: u64,
    /// Operations, about; 0 where W~ is made already.
    pub(crate) round_flops: f64,
    /// The W~ that the state holds; null where it is still to be made.
    pub(crate) made: Option<MadeRounding>,
}

/// A W~ that is made already.
#[derive(Debug, Serialize)]
pub(crate) struct MadeRounding {
    /// Its rounding, which is nearest where no row had come when the base was written.
    pub(crate) rounding: Rounding,
    /// The rank that it was rounded for; 0 where it was rounded for none.
    pub(crate) rank: usize,
    /// Number of rows in R.
    pub(crate) rows: u64,
    /// Number of the last of their shards.
    pub(crate) journal_position: u64,
    /// The errors measured at that time; null without rows.
    pub(crate) errors: Option<MeasuredRounding>,
}

impl RoundingPlan {
    /// The rounding of a layer whose solve has this cost; `None` for nearest rounding, which costs
    /// nothing.
    #[must_use]
    pub(crate) fn new(run: &PlannedRun<'_>, layer: usize, quantity: Quantity) -> Option<Self> {
        let settings = &run.settings.rounding;
        if !settings.rounding.uses_rows() {
            return None;
        }
        let made = run.made.get(layer).and_then(Option::as_ref);
        let rounding = RoundingQuantity {
            solve: quantity,
            grid: run.settings.weights.quantizer,
            kernel: run.settings.compute.kernel,
        };
        let (to_do, live) = (made.is_none(), run.solving.is_live());
        Some(Self {
            round_after: live.then(|| settings.round_after_rows(quantity.m)),
            round_bytes: if to_do { rounding.bytes() } else { 0 },
            panel_bytes: if to_do { rounding.panel_bytes() } else { 0 },
            packed_bytes: if to_do { rounding.packed_bytes() } else { 0 },
            round_flops: if to_do { rounding.flops(settings) } else { 0.0 },
            made: made.map(MadeRounding::new),
        })
    }
}

impl MadeRounding {
    fn new(record: &RoundingRecord) -> Self {
        Self {
            rounding: record.rounding,
            rank: record.rank,
            rows: record.rows,
            journal_position: record.journal_position,
            errors: record.measured,
        }
    }
}

/// The rounding in words.
fn described(settings: &RoundingSettings) -> String {
    let RoundingSettings {
        rounding,
        shrinkage,
        base_share,
        ..
    } = settings;
    let shrinkage = match shrinkage {
        RoundingShrinkage::Rule => "3 m / (3 m + rows)".into(),
        RoundingShrinkage::Auto => "chosen on held-out rows".into(),
        RoundingShrinkage::Fixed(a) => a.to_string(),
    };
    let share = if rounding.knows_the_adapter() {
        format!(", base share {base_share}")
    } else {
        String::new()
    };
    format!(
        "rounding: {}{share}, shrinkage {shrinkage}",
        rounding.name()
    )
}

impl Plan {
    /// The rounding's work, as the end of the line on work.
    pub(crate) fn rounding_work(&self) -> String {
        let layers = self.layers.iter().filter_map(|l| l.rounding.as_ref());
        let to_do = layers.filter(|plan| plan.made.is_none()).count();
        if to_do == 0 {
            return String::new();
        }
        let work = self.round_flops / 1e9;
        format!(", about {work:.1} GFlop to round {to_do} layers")
    }

    /// A table of when layers are rounded, and of the errors of bases that are made; empty for
    /// nearest rounding.
    pub(crate) fn rounding_table(&self, settings: &Settings) -> String {
        let mut text = String::new();
        if !settings.rounding.rounding.uses_rows() {
            return text;
        }
        // Writing to a String cannot fail.
        let mut line = |s: core::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{s}");
        };
        line(format_args!("\n{}", described(&settings.rounding)));
        line(format_args!(
            "{:<52} {:>10} {:>16} {:>9} {:>10} {:>10} {:>10}",
            "layer", "at rows", "rounding", "GFlop", "base alone", "nearest", "corrected"
        ));
        for layer in &self.layers {
            let Some(plan) = &layer.rounding else {
                continue;
            };
            let errors = plan.made.as_ref().and_then(|made| made.errors);
            let error = |of: fn(&MeasuredRounding) -> f64| {
                errors
                    .as_ref()
                    .map_or("-".into(), |e| format!("{:.2e}", of(e)))
            };
            let (rows, memory, work) = match &plan.made {
                Some(made) => (
                    made.rows.to_string(),
                    format!("made ({})", made.rounding.name()),
                    "-".into(),
                ),
                None => (
                    plan.round_after
                        .map_or("the end".into(), |rows| rows.to_string()),
                    format_bytes(plan.round_bytes),
                    format!("{:.2}", plan.round_flops / 1e9),
                ),
            };
            line(format_args!(
                "{:<52} {rows:>10} {memory:>16} {work:>9} {:>10} {:>10} {:>10}",
                layer.name,
                error(|e| e.error_alone),
                error(|e| e.error_nearest),
                error(|e| e.error_with)
            ));
        }
        text
    }
}
