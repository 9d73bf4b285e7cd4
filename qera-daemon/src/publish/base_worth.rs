//! What W~ is worth on its own: its error, beside that of nearest rounding and that with the
//! adapter. This is said wherever a base is written, because an engine may serve the base without
//! the adapter.

use qera_core::quantize::Grid;

use crate::observe::run_events::{BaseWritten, WorstLayer};
use crate::publish::layers::PublishedLayers;
use crate::settings::rounding::Rounding;

/// Name of the file beside the weights that says what the base is worth.
pub(crate) const README: &str = "qera_base.md";
/// No base with this many bits a weight, or fewer, was usable alone.
const TOO_FEW_BITS: u32 = 3;

/// How a W~ was made, and how large its errors are.
#[derive(Debug, Clone)]
pub(crate) struct BaseWorth {
    /// How W~ was rounded.
    rounding: Rounding,
    /// `mxint3/32`, say.
    quantizer: String,
    /// Bits of a weight, without its block's scale.
    bits: u32,
    /// The errors; `None` where no layer has an error to measure.
    errors: Option<MeanErrors>,
}

/// Geometric means over layers of f / tr(R W W^T). Errors of a rounding under R were measured when
/// it was done, under the R of that time.
#[derive(Debug, Clone)]
struct MeanErrors {
    /// Number of layers with an error to measure.
    layers: usize,
    /// The mean error of W~ alone,
    alone: f64,
    /// of nearest rounding alone, where W~ is another,
    nearest: Option<f64>,
    /// and of W~ with the adapter.
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
    /// The errors of a layer; `None` where it was not solved from rows, or has no error.
    fn new(of: &PublishedLayers<'_>, layer: usize) -> Option<Self> {
        let solution = of.outcomes[layer].measured()?;
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

    /// How bad W~ of this layer is alone: its error relative to nearest rounding's. Where all
    /// layers are rounded to nearest, its error itself; where only this one is, the value is 1.
    fn badness(&self, rounding: Rounding) -> f64 {
        match self.nearest {
            Some(nearest) => self.alone / nearest,
            None if rounding.uses_rows() => 1.0,
            None => self.alone,
        }
    }
}

impl MeanErrors {
    fn new(rounding: Rounding, layers: impl Iterator<Item = LayerErrors>) -> Option<Self> {
        let mut logs = LogSums::default();
        let mut worst: Option<WorstLayer> = None;
        for errors in layers {
            logs.add(&errors);
            let badness = errors.badness(rounding);
            if worst.as_ref().is_none_or(|worst| badness > worst.badness) {
                let layer = errors.layer;
                worst = Some(WorstLayer { layer, badness });
            }
        }
        Some(Self {
            layers: logs.layers,
            alone: logs.mean(logs.alone),
            nearest: rounding.uses_rows().then(|| logs.mean(logs.nearest)),
            corrected: logs.mean(logs.corrected),
            worst: worst?,
        })
    }
}

impl BaseWorth {
    /// The errors of a generation's W~.
    #[must_use]
    pub(crate) fn new(of: &PublishedLayers<'_>) -> Self {
        let layers = 0..of.weights.layers().len();
        let errors = layers.filter_map(|layer| LayerErrors::new(of, layer));
        let rounding = of.settings.rounding.rounding;
        Self {
            rounding,
            quantizer: of.weights.format().to_string(),
            bits: bits(of.weights.grid()),
            errors: MeanErrors::new(rounding, errors),
        }
    }

    /// The event that the base is in its place; `None` where nothing is known of its worth.
    #[must_use]
    pub(crate) fn written(&self, path: String) -> Option<BaseWritten> {
        let errors = self.errors.clone()?;
        Some(BaseWritten {
            path,
            rounding: self.rounding.name(),
            layers: errors.layers,
            alone: errors.alone,
            nearest: errors.nearest,
            corrected: errors.corrected,
            worst: errors.worst,
            has_too_few_bits: self.bits <= TOO_FEW_BITS,
        })
    }

    /// The text for a person who finds the base.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let (rounding, quantizer) = (self.rounding.name(), &self.quantizer);
        let belongs = if self.rounding.uses_rows() {
            "Adapters of the folder that it lies in belong on this W~ and on no other: not on \
             weights that\nwere rounded to nearest, though they have the same format.\n"
        } else {
            ""
        };
        format!(
            "# Quantized weights (W~) made by qera

W~ replaces the weights W of the linear layers. It is quantized by {quantizer}, rounding `{rounding}`;
`qera_base.json` says what it was made from. Serve it with the adapter in `current`.
{belongs}
{}",
            self.errors()
        )
    }

    /// The errors, and whether the base can be used without its adapter, in words.
    #[must_use]
    pub(crate) fn errors(&self) -> String {
        let usable = self.usable();
        let Some(errors) = &self.errors else {
            return format!("No layer has an error that was measured. {usable}\n");
        };
        format!(
            "Squared error of a layer's output relative to the squared output, geometric means of {} layers:\n\n{}\n{usable}\n",
            errors.layers,
            errors.table()
        )
    }

    fn usable(&self) -> &'static str {
        if self.bits <= TOO_FEW_BITS {
            return "At 3 bits and fewer no W~ is usable without its adapter, however it was rounded: SmolLM2-135M at mxint3/32
has a perplexity of 39 in full precision, 437 rounded to nearest and 577 rounded by `projected`, both without adapter (50.7 with it).";
        }
        match self.errors {
            Some(_) => "These errors say how good W~ is without its adapter.",
            None => "It is not known how good W~ is without its adapter.",
        }
    }
}

impl MeanErrors {
    fn table(&self) -> String {
        let Self {
            alone,
            nearest,
            corrected,
            worst: WorstLayer { layer, badness },
            ..
        } = self;
        let worst = match nearest {
            Some(_) => format!("`{layer}`, {badness:.2} times nearest's"),
            None => format!("`{layer}`, {badness:.2e}"),
        };
        let nearest = nearest.map_or(String::new(), |nearest| {
            format!("| rounded to nearest, without adapter | {nearest:.2e} |\n")
        });
        format!(
            "| | error |\n|---|---|\n| this W~ without adapter | {alone:.2e} |\n{nearest}| this W~ with the adapter | {corrected:.2e} |\n\nWorst without adapter: {worst}.\n"
        )
    }
}

fn bits(grid: &Grid) -> u32 {
    match grid {
        Grid::Mxint(mxint) => mxint.element_bits(),
        Grid::Int(int) => int.element_bits(),
        Grid::Q4_0(_) => 4,
    }
}

/// Sums of logarithms, for geometric means.
#[derive(Default)]
struct LogSums {
    layers: usize,
    alone: f64,
    nearest: f64,
    corrected: f64,
}

impl LogSums {
    /// Adds a layer. One that was rounded to nearest among others counts as nearest on both sides.
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
    use crate::settings::Settings;

    /// The worth of layers with these errors: alone, of nearest rounding, corrected.
    fn worth(rounding: Rounding, bits: u32, layers: &[(f64, Option<f64>, f64)]) -> BaseWorth {
        let errors = layers.iter().zip(["h.0", "h.1", "h.2"]);
        let errors = errors.map(|(&(alone, nearest, corrected), layer)| LayerErrors {
            layer: layer.into(),
            alone,
            nearest: nearest.filter(|_| rounding.uses_rows()),
            corrected,
        });
        BaseWorth {
            rounding,
            quantizer: format!("mxint{bits}/32"),
            bits,
            errors: MeanErrors::new(rounding, errors),
        }
    }

    /// The second layer has the larger error; the first one's error is the larger relative to
    /// nearest rounding.
    const LAYERS: [(f64, Option<f64>, f64); 2] =
        [(0.02, Some(0.01), 0.001), (0.32, Some(0.64), 0.1)];

    fn near(found: f64, expected: f64) -> bool {
        (found / expected - 1.0).abs() < 1e-12
    }

    fn written(worth: BaseWorth) -> BaseWritten {
        worth.written("out/base".into()).unwrap()
    }

    #[test]
    fn means_are_geometric_and_the_worst_is_beside_nearest() {
        let projected = written(worth(Rounding::Projected, 3, &LAYERS));
        assert!(near(projected.alone, 0.08), "{projected:?}");
        assert!(near(projected.nearest.unwrap(), 0.08), "{projected:?}");
        assert!(near(projected.corrected, 0.01), "{projected:?}");
        assert_eq!(
            (projected.layers, projected.worst.layer.as_str()),
            (2, "h.0")
        );
        assert!(near(projected.worst.badness, 2.0), "{projected:?}");
        let nearest = written(worth(Rounding::Nearest, 3, &LAYERS));
        assert_eq!(
            (nearest.nearest, nearest.worst.layer.as_str()),
            (None, "h.1")
        );
        assert!(near(nearest.worst.badness, 0.32), "{nearest:?}");
    }

    /// The layer had no rows when the others were rounded.
    #[test]
    fn a_layer_that_is_nearest_among_others_is_as_bad_as_nearest() {
        let [first, second] = LAYERS;
        let better = (0.005, first.1, first.2);
        let layers = [better, second, (40.0, None, 0.1)];
        let among = written(worth(Rounding::Projected, 3, &layers));
        assert_eq!(among.worst.layer, "h.2");
        assert!(near(among.worst.badness, 1.0), "{among:?}");
        let alone = worth(Rounding::Projected, 3, &layers[2..]).text();
        let said = "Worst without adapter: `h.0`, 1.00 times nearest's.";
        assert!(alone.contains(said), "{alone}");
    }

    #[test]
    fn what_a_person_reads_has_them_beside_each_other() {
        let text = worth(Rounding::Projected, 3, &LAYERS).text();
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
        let nearest = worth(Rounding::Nearest, 3, &LAYERS).text();
        assert!(!nearest.contains("on no other"), "{nearest}");
        assert!(nearest.contains("`h.1`, 3.20e-1."), "{nearest}");
    }

    #[test]
    fn only_few_bits_are_said_to_be_too_few() {
        let usable = |bits: u32| worth(Rounding::Projected, bits, &LAYERS).text();
        let said = |bits: u32| written(worth(Rounding::Nearest, bits, &LAYERS)).has_too_few_bits;
        assert_eq!([2, 3, 4, 8].map(said), [true, true, false, false]);
        for bits in [2, 3] {
            assert!(usable(bits).contains("At 3 bits and fewer"), "{bits}");
        }
        for bits in [4, 8] {
            let text = usable(bits);
            assert!(!text.contains("3 bits"), "{text}");
            assert!(text.contains("These errors say how good W~ is"), "{text}");
        }
        let grid = |name: &str| {
            let settings = format!("quantizer = \"{name}\"\nblock-size = 32");
            bits(&Settings::from_toml(&settings).unwrap().weights.quantizer)
        };
        let found = ["mxint3", "int8", "q4-0"].map(grid);
        assert_eq!(found, [3, 8, 4]);
    }

    #[test]
    fn where_no_layer_has_an_error_nothing_is_known() {
        let worth = worth(Rounding::Projected, 8, &[]);
        let text = worth.text();
        for said in [
            "quantized by mxint8/32",
            "on no other",
            "No layer has an error that was measured. It is not known how good W~ is",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert!(!text.contains("| error |"), "{text}");
        assert!(worth.written("out/base".into()).is_none());
    }
}
