//! What W~ is worth on its own: its error beside that of nearest rounding and beside that with the
//! adapter. Said wherever a base is written, because an engine may serve one without the other.

use crate::observe::run_events::{BaseWritten, WorstLayer};
use crate::publish::layers::PublishedLayers;
use crate::settings::rounding::Rounding;

/// Name of the file that says it, beside the weights.
pub(crate) const README: &str = "qera_base.md";

/// Errors are f over tr(R W W^T). Those of rounding under R are as measured when it was done, under
/// the R of that time.
#[derive(Debug, Clone)]
pub(crate) struct BaseWorth {
    /// How W~ was rounded.
    rounding: &'static str,
    /// `mxint3/32`, say.
    quantizer: String,
    /// Layers with an error to measure.
    layers: usize,
    /// Geometric means over them: W~ alone,
    alone: f64,
    /// rounded to nearest alone, where W~ is not,
    nearest: Option<f64>,
    /// and W~ with the adapter.
    corrected: f64,
    worst: WorstLayer,
}

/// The errors of one layer.
struct LayerErrors {
    layer: String,
    alone: f64,
    nearest: Option<f64>,
    corrected: f64,
}

impl LayerErrors {
    /// None of a layer that was not solved, or has no error.
    fn new(of: &PublishedLayers<'_>, layer: usize) -> Option<Self> {
        let solution = of.outcomes[layer].solution()?;
        let power = solution.output_power;
        let made = of.weights.rounding_of(layer).and_then(|of| of.measured);
        let errors = Self {
            layer: of.weights.layers()[layer].name.clone(),
            alone: made.map_or(solution.error_without / power, |made| made.error_alone),
            nearest: made.map(|made| made.error_nearest),
            corrected: solution.factors.error / power,
        };
        let all = [
            errors.alone,
            errors.corrected,
            errors.nearest.unwrap_or(1.0),
        ];
        let measured = |error: &f64| error.is_finite() && *error > 0.0;
        all.iter().all(measured).then_some(errors)
    }

    /// How bad it is alone: beside nearest where that is another.
    fn badness(&self) -> f64 {
        self.nearest
            .map_or(self.alone, |nearest| self.alone / nearest)
    }
}

impl BaseWorth {
    /// Of the layers of a generation; `None` where none has an error.
    #[must_use]
    pub(crate) fn new(of: &PublishedLayers<'_>) -> Option<Self> {
        let layers = 0..of.weights.layers().len();
        let errors = layers.filter_map(|layer| LayerErrors::new(of, layer));
        let quantizer = of.weights.format().to_string();
        Self::of(of.settings.rounding.rounding, quantizer, errors)
    }

    fn of(
        rounding: Rounding,
        quantizer: String,
        layers: impl Iterator<Item = LayerErrors>,
    ) -> Option<Self> {
        let mut logs = LogSums::default();
        let mut worst: Option<WorstLayer> = None;
        for errors in layers {
            logs.add(&errors);
            let badness = errors.badness();
            if worst.as_ref().is_none_or(|worst| badness > worst.badness) {
                let layer = errors.layer;
                worst = Some(WorstLayer { layer, badness });
            }
        }
        Some(Self {
            rounding: rounding.name(),
            quantizer,
            layers: logs.layers,
            alone: logs.mean(logs.alone),
            nearest: rounding.uses_rows().then(|| logs.mean(logs.nearest)),
            corrected: logs.mean(logs.corrected),
            worst: worst?,
        })
    }

    /// As the event of a base in its place.
    #[must_use]
    pub(crate) fn written(self, path: String) -> BaseWritten {
        BaseWritten {
            path,
            rounding: self.rounding,
            layers: self.layers,
            alone: self.alone,
            nearest: self.nearest,
            corrected: self.corrected,
            worst: self.worst,
        }
    }

    /// What a person reads who has the base before him.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let Self {
            rounding,
            quantizer,
            layers,
            ..
        } = self;
        let belongs = match self.nearest {
            Some(_) => {
                "Adapters of the folder that it lies in belong on this W~ and on no other: not on \
                 weights that\nwere rounded to nearest, though they have the same format.\n"
            }
            None => "",
        };
        format!(
            "# W~ of qera

The linear layers' weights are quantized by {quantizer}, rounding `{rounding}`; `qera_base.json` says what
they were made from. Serve them with the adapter in `current`.
{belongs}
Output error over the output's power (f / tr(R W W^T)), geometric means of {layers} layers:

{}
{}
",
            self.table(),
            self.usable()
        )
    }

    /// The errors as a table.
    #[must_use]
    pub(crate) fn table(&self) -> String {
        let Self {
            alone,
            nearest,
            corrected,
            worst,
            ..
        } = self;
        let WorstLayer { layer, badness } = worst;
        let nearest = nearest.map_or(String::new(), |nearest| {
            format!("| rounded to nearest, without adapter | {nearest:.2e} |\n")
        });
        let worst = match self.nearest {
            Some(_) => format!("`{layer}`, {badness:.2} times nearest's"),
            None => format!("`{layer}`, {badness:.2e}"),
        };
        format!(
            "| | error |\n|---|---|\n| this W~ without adapter | {alone:.2e} |\n{nearest}| this W~ with the adapter | {corrected:.2e} |\n\nWorst without adapter: {worst}.\n"
        )
    }

    /// Whether the base can be used without its adapter.
    #[must_use]
    pub(crate) fn usable(&self) -> &'static str {
        "At 3 bits and fewer no W~ is usable without its adapter, however it was rounded: SmolLM2-135M at mxint3/32
has a perplexity of 39 in full precision, 437 rounded to nearest and 577 rounded by `projected`, both without adapter (50.7 with it)."
    }
}

/// Sums of logarithms.
#[derive(Default)]
struct LogSums {
    layers: usize,
    alone: f64,
    nearest: f64,
    corrected: f64,
}

impl LogSums {
    /// A layer that was rounded to nearest is so in either.
    fn add(&mut self, errors: &LayerErrors) {
        self.layers += 1;
        self.alone += errors.alone.ln();
        self.nearest += errors.nearest.unwrap_or(errors.alone).ln();
        self.corrected += errors.corrected.ln();
    }

    fn mean(&self, sum: f64) -> f64 {
        (sum / self.layers.max(1) as f64).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worth(rounding: Rounding, layers: [[f64; 3]; 2]) -> BaseWorth {
        let errors = layers.into_iter().zip(["h.0", "h.1"]);
        let errors = errors.map(|([alone, nearest, corrected], layer)| LayerErrors {
            layer: layer.into(),
            alone,
            nearest: rounding.uses_rows().then_some(nearest),
            corrected,
        });
        BaseWorth::of(rounding, "mxint3/32".into(), errors).unwrap()
    }

    #[test]
    fn means_are_geometric_and_the_worst_is_beside_nearest() {
        // The second is worse, the first is more worse than nearest.
        let layers = [[0.02, 0.01, 0.001], [0.32, 0.64, 0.1]];
        let written = worth(Rounding::Projected, layers).written("out/base".into());
        let near = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-12;
        assert!(near(written.alone, 0.08), "{written:?}");
        assert!(near(written.nearest.unwrap(), 0.08), "{written:?}");
        assert!(near(written.corrected, 0.01), "{written:?}");
        assert_eq!((written.layers, written.worst.layer.as_str()), (2, "h.0"));
        assert!(near(written.worst.badness, 2.0), "{written:?}");
        let nearest = worth(Rounding::Nearest, layers).written("out/base".into());
        assert_eq!(
            (nearest.nearest, nearest.worst.layer.as_str()),
            (None, "h.1")
        );
        assert!(near(nearest.worst.badness, 0.32), "{nearest:?}");
    }

    #[test]
    fn what_a_person_reads_has_them_beside_each_other() {
        let layers = [[0.02, 0.01, 0.001], [0.32, 0.64, 0.1]];
        let text = worth(Rounding::Projected, layers).text();
        for said in [
            "quantized by mxint3/32, rounding `projected`",
            "belong on this W~ and on no other",
            "geometric means of 2 layers",
            "| this W~ without adapter | 8.00e-2 |",
            "| rounded to nearest, without adapter | 8.00e-2 |",
            "| this W~ with the adapter | 1.00e-2 |",
            "Worst without adapter: `h.0`, 2.00 times nearest's.",
            "At 3 bits and fewer no W~ is usable",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        let nearest = worth(Rounding::Nearest, layers).text();
        assert!(!nearest.contains("on no other"), "{nearest}");
        assert!(nearest.contains("`h.1`, 3.20e-1."), "{nearest}");
    }
}
