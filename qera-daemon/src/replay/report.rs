//! The result of a replay, for people and for programs.

use core::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use crate::observe::reporter::printable;
use crate::publish::ratio::ratio;
use crate::replay::claims::ClaimedFigures;
use crate::replay::judgement::{Agreement, OF_WINDOW};
use crate::replay::layers::FoundLayer;
use crate::replay::measure::MeasuredErrors;
use crate::replay::recorded::Recorded;

/// The result for an adapter in one of its forms.
#[derive(Debug)]
pub(crate) struct ReplayReport {
    /// The form.
    pub(crate) form: &'static str,
    /// Number of shards whose rows were replayed.
    pub(crate) shards: usize,
    /// The layers that were replayed, in the order of their sites.
    pub(crate) layers: Vec<LayerReport>,
}

/// The result for a layer.
#[derive(Debug)]
pub(crate) struct LayerReport {
    name: String,
    /// The layer's name in this form.
    adapter_name: String,
    measured: MeasuredErrors,
    /// The errors in the manifest, relative to the output's power, and the rows that they are of.
    said: Option<SaidErrors>,
    verdict: Agreement,
}

/// The manifest's figures for a layer.
#[derive(Debug, Clone, Copy, Serialize)]
struct SaidErrors {
    rows: u64,
    relative_without: f64,
    relative_with: f64,
}

/// Means over layers of errors relative to the output's power.
#[derive(Debug, Clone, Copy, Serialize)]
struct Totals {
    layers: usize,
    shards: usize,
    /// Number of rows of the layer that has most.
    rows: usize,
    mean_relative_without: f64,
    mean_relative_with: f64,
    /// Number of layers whose figures agree with the manifest's.
    same: usize,
    /// The largest relative difference of these layers' error with the adapter.
    largest_deviation: f64,
    /// Number of layers whose error is larger with the adapter.
    harmed: usize,
}

impl LayerReport {
    /// The report on a layer that was measured.
    #[must_use]
    pub(crate) fn new(
        name: &str,
        found: &FoundLayer,
        measured: MeasuredErrors,
        verdict: Agreement,
    ) -> Self {
        let said = found.said.as_ref().and_then(|layer| {
            let ClaimedFigures { error, power, .. } = layer.figures()?;
            Some(SaidErrors {
                rows: layer.rows,
                relative_without: ratio(error.without, power),
                relative_with: ratio(error.rounded, power),
            })
        });
        Self {
            name: name.to_owned(),
            adapter_name: found.name.clone(),
            measured,
            said,
            verdict,
        }
    }

    fn line(&self) -> String {
        let Self {
            name,
            measured,
            said,
            verdict,
            ..
        } = self;
        let said = said.map_or(String::new(), |said| {
            let which = match verdict {
                Agreement::Same { .. } | Agreement::Differs(_) => "the same rows".to_owned(),
                Agreement::RowsOfWindow => format!(
                    "some of {} rows: not checked nearer than a factor of {OF_WINDOW}",
                    said.rows
                ),
                Agreement::OtherRows | Agreement::NothingSaid => {
                    format!("{} other rows", said.rows)
                }
            };
            format!(
                "; the manifest says {:.4e} and {:.4e} ({which})",
                said.relative_with, said.relative_without
            )
        });
        format!(
            "{name}: error {:.4e} of the output's power with the adapter, {:.4e} without \
             ({} rows){said}",
            measured.relative_with(),
            measured.relative_without(),
            measured.rows
        )
    }

    fn json(&self) -> Value {
        let Self {
            name,
            adapter_name,
            measured,
            said,
            verdict,
        } = self;
        let deviation = match verdict {
            Agreement::Same { deviation } => Some(*deviation),
            _ => None,
        };
        json!({
            "name": name,
            "adapter_name": adapter_name,
            "rows": measured.rows,
            "rank": measured.rank,
            "output_power": measured.power,
            "error_without": measured.without,
            "error_with": measured.with,
            "relative_without": measured.relative_without(),
            "relative_with": measured.relative_with(),
            "harm": measured.does_harm(),
            "manifest": said,
            "verdict": verdict.name(),
            "deviation": deviation,
        })
    }
}

impl ReplayReport {
    /// The report on a form, without any layer yet.
    #[must_use]
    pub(crate) fn new(form: &'static str, recorded: &Recorded) -> Self {
        Self {
            form,
            shards: recorded.shards.len(),
            layers: Vec::new(),
        }
    }

    /// Adds a layer.
    pub(crate) fn take(&mut self, layer: LayerReport) {
        self.layers.push(layer);
    }

    fn totals(&self) -> Totals {
        let layers = self.layers.iter();
        let mean = |of: fn(&MeasuredErrors) -> f64| {
            let sum: f64 = self.layers.iter().map(|layer| of(&layer.measured)).sum();
            ratio(sum, self.layers.len() as f64)
        };
        let deviations = layers.clone().filter_map(|layer| match layer.verdict {
            Agreement::Same { deviation } => Some(deviation),
            _ => None,
        });
        let harmed = layers.clone().filter(|layer| layer.measured.does_harm());
        Totals {
            layers: self.layers.len(),
            shards: self.shards,
            rows: layers
                .map(|layer| layer.measured.rows)
                .max()
                .unwrap_or_default(),
            mean_relative_without: mean(MeasuredErrors::relative_without),
            mean_relative_with: mean(MeasuredErrors::relative_with),
            same: deviations.clone().count(),
            largest_deviation: deviations.fold(0.0, f64::max),
            harmed: harmed.count(),
        }
    }

    /// The text: a line for each layer, and one for all of them.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let form = self.form;
        for layer in &self.layers {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "replay ({form}): {}", printable(&layer.line()));
        }
        let Totals {
            layers,
            shards,
            rows,
            mean_relative_without,
            mean_relative_with,
            same,
            largest_deviation,
            harmed,
        } = self.totals();
        let _ = writeln!(
            text,
            "replay ({form}): {layers} layers, {rows} rows of {shards} shards: error \
             {mean_relative_with:.4e} with the adapter, {mean_relative_without:.4e} without (mean \
             over layers, of the output's power); {same} as in the manifest, within \
             {largest_deviation:.1e}; {harmed} harmed"
        );
        text
    }

    /// The report as a JSON object.
    #[must_use]
    pub(crate) fn json(&self) -> Value {
        let layers: Vec<Value> = self.layers.iter().map(LayerReport::json).collect();
        json!({"form": self.form, "layers": layers, "totals": self.totals()})
    }
}
