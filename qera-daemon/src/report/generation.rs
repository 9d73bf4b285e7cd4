//! The part of a generation's manifest that a report shows.

use serde::Deserialize;

/// A generation, as its manifest describes it.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ReportedGeneration {
    /// The program that published it.
    #[serde(default)]
    pub(crate) qera_version: String,
    /// The generation's number; where the manifest has none the report sets the folder's.
    #[serde(default)]
    pub(crate) generation: Option<u64>,
    /// Identity of the state that it was solved from.
    #[serde(default)]
    pub(crate) state: Option<String>,
    /// Fingerprints of what it belongs to.
    #[serde(default)]
    pub(crate) fingerprints: ReportedFingerprints,
    /// How it was made.
    #[serde(default)]
    pub(crate) settings: ReportedSettings,
    /// The file or folder that W~ was read from.
    #[serde(default)]
    pub(crate) quantized: Option<ReportedQuantized>,
    /// The forms in which the adapter is written.
    #[serde(default)]
    pub(crate) forms: Vec<String>,
    /// The bits of base and adapter.
    #[serde(default)]
    pub(crate) bits_per_weight: Option<ReportedBits>,
    /// Where the rows came from.
    #[serde(default)]
    pub(crate) inputs: ReportedInputs,
    /// Every selected layer.
    #[serde(default)]
    pub(crate) layers: Vec<ReportedLayer>,
    /// Tensors that were not corrected.
    #[serde(default)]
    pub(crate) passed_over: Vec<ReportedTensors>,
}

/// Fingerprints by which it is decided whether two generations can be compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ReportedFingerprints {
    /// The fingerprint of the selected weights.
    #[serde(default)]
    pub(crate) checkpoint: String,
    /// The fingerprint of the settings that decide the adapter's bytes.
    #[serde(default)]
    pub(crate) settings: String,
}

/// How a generation was made.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ReportedSettings {
    /// The method's name.
    #[serde(default)]
    pub(crate) method: String,
    /// How W~ was rounded; `None` for nearest rounding.
    #[serde(default)]
    pub(crate) rounding: Option<ReportedChoice>,
}

/// How W~ was rounded.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ReportedChoice {
    /// The rounding's name.
    #[serde(default)]
    pub(crate) name: String,
}

/// Where W~ was read from.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ReportedQuantized {
    /// The file or folder.
    #[serde(default)]
    pub(crate) path: String,
}

/// Bits of a weight.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ReportedBits {
    /// Bits of W~, with its scales.
    #[serde(default)]
    pub(crate) base: f64,
    /// The form that was counted as W~.
    #[serde(default)]
    pub(crate) base_as: String,
    /// Bits of A and B.
    #[serde(default)]
    pub(crate) adapter: f64,
    /// Bits of both together.
    #[serde(default)]
    pub(crate) both: f64,
    /// ggml's next larger types, compared with the base.
    #[serde(default)]
    pub(crate) next_to_base: Option<ReportedTypes>,
    /// ggml's next larger types, compared with base and adapter together.
    #[serde(default)]
    pub(crate) next_to_both: Option<ReportedTypes>,
}

/// Types of ggml that take the same number of bits.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct ReportedTypes {
    /// The types' names.
    #[serde(default)]
    pub(crate) types: Vec<String>,
    /// Bits of a weight.
    #[serde(default)]
    pub(crate) bits: f64,
}

/// Where the rows came from.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ReportedInputs {
    /// Number of shards folded.
    #[serde(default)]
    pub(crate) shards: usize,
    /// Number of shards set aside in the run that published.
    #[serde(default)]
    pub(crate) quarantined_shards: usize,
    /// The reasons of the first hundred of these shards.
    #[serde(default)]
    pub(crate) quarantined: Vec<String>,
    /// Whether the rows are of the full-precision model; `None` where a shard does not say.
    #[serde(default)]
    pub(crate) full_precision_model: Option<bool>,
    /// Whether every layer was solved cold from all shards.
    #[serde(default)]
    pub(crate) drained: bool,
}

/// Tensors that were passed over for the same reason.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ReportedTensors {
    /// The names of these tensors; `*` stands for any number.
    #[serde(default)]
    pub(crate) tensors: String,
    /// The number of these tensors.
    #[serde(default)]
    pub(crate) count: usize,
    /// The reason.
    #[serde(default)]
    pub(crate) why: String,
    /// The share of the model's parameters.
    #[serde(default)]
    pub(crate) share: f64,
}

/// One layer.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ReportedLayer {
    /// Module path in the checkpoint.
    #[serde(default)]
    pub(crate) name: String,
    /// The layer's outcome.
    #[serde(default)]
    pub(crate) status: String,
    /// Rank asked for.
    #[serde(default)]
    pub(crate) rank_asked: usize,
    /// Rank really used.
    #[serde(default)]
    pub(crate) rank_used: usize,
    /// The format in which W~ is stored.
    #[serde(default)]
    pub(crate) quantizer: String,
    /// How W~ was made, if it was rounded by the measure of R.
    #[serde(default)]
    pub(crate) rounding: Option<ReportedRounding>,
    /// The a of (1 - a) R + a diag(R).
    #[serde(default)]
    pub(crate) shrinkage: Option<f64>,
    /// How the shrinkage a was chosen.
    #[serde(default)]
    pub(crate) shrinkage_origin: Option<String>,
    /// Number of rows that the correction was solved from.
    #[serde(default)]
    pub(crate) rows: u64,
    /// The error on the rows seen.
    #[serde(default)]
    error: Option<ReportedError>,
    /// The diagonal error, where an imatrix stands in for rows.
    #[serde(default)]
    diagonal_error: Option<ReportedError>,
    /// Where a sketch stood for R.
    #[serde(default)]
    window_error: Option<ReportedError>,
    /// The error on held-out rows.
    #[serde(default)]
    held_out_error: Option<ReportedHeldOut>,
    /// The evidence of rows that came later.
    #[serde(default)]
    evidence: Option<ReportedEvidence>,
    /// Whether the layer has converged: more rows no longer help.
    #[serde(default)]
    pub(crate) converged: bool,
}

/// How a layer's W~ was rounded.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ReportedRounding {
    #[serde(default)]
    error: Option<ReportedRoundingError>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ReportedRoundingError {
    #[serde(default)]
    error_nearest: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ReportedError {
    #[serde(default)]
    relative_without: Option<f64>,
    #[serde(default)]
    relative_with: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ReportedHeldOut {
    #[serde(default)]
    mean: Option<f64>,
    #[serde(default)]
    half_width: Option<f64>,
    #[serde(default)]
    mean_without: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ReportedEvidence {
    #[serde(default)]
    error: Option<f64>,
    #[serde(default)]
    error_without: Option<f64>,
    #[serde(default)]
    relative_half_width: Option<f64>,
}

/// A layer's error before and after, relative to the power of its output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BeforeAndAfter {
    /// The error of the quantized layer alone.
    pub(crate) without: f64,
    /// The error with the correction as it is written.
    pub(crate) with: f64,
    /// What it is.
    pub(crate) kind: ErrorKind,
}

/// What an error is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The output's, over all rows.
    Output,
    /// The output's, over the rows of the window.
    Window,
    /// An imatrix's diagonal error, which is no error of the output.
    Diagonal,
}

impl ErrorKind {
    /// All, the most telling first.
    pub(crate) const ALL: [Self; 3] = [Self::Output, Self::Window, Self::Diagonal];

    /// What stands behind such a number; none behind the output's error.
    #[must_use]
    pub(crate) const fn word(self) -> Option<&'static str> {
        match self {
            Self::Output => None,
            Self::Window => Some("window"),
            Self::Diagonal => Some("diagonal"),
        }
    }
}

/// A share of the error without correction, with its 95 % interval where there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ErrorShare {
    /// The share that is left.
    pub(crate) left: f64,
    /// Half of the interval's width.
    pub(crate) half_width: Option<f64>,
}

impl ReportedLayer {
    /// Whether the layer is in the adapter.
    #[must_use]
    pub(crate) fn is_solved(&self) -> bool {
        ["solved", "imatrix", "nothing-to-correct"].contains(&self.status.as_str())
    }

    /// Whether the layer is corrected.
    #[must_use]
    pub(crate) fn is_corrected(&self) -> bool {
        self.is_solved() && self.rank_used > 0
    }

    /// The layer's error before and after; `None` where it was not solved.
    #[must_use]
    pub(crate) fn relative(&self) -> Option<BeforeAndAfter> {
        let kinds = [&self.error, &self.window_error, &self.diagonal_error];
        let mut kinds = ErrorKind::ALL.into_iter().zip(kinds);
        let (kind, error) = kinds.find_map(|(kind, error)| Some((kind, error.as_ref()?)))?;
        if !self.is_solved() {
            return None;
        }
        Some(BeforeAndAfter {
            without: error.relative_without?,
            with: error.relative_with?,
            kind,
        })
    }

    /// The share of the error that the correction leaves on the rows that it was made from.
    #[must_use]
    pub(crate) fn left(&self) -> Option<f64> {
        let of = self.relative()?;
        (of.without > 0.0).then(|| of.with / of.without)
    }

    /// The share that such a correction leaves on held-out rows.
    #[must_use]
    pub(crate) fn held_out(&self) -> Option<ErrorShare> {
        let of = self.held_out_error.as_ref()?;
        let without = of.mean_without.filter(|without| *without > 0.0)?;
        Some(ErrorShare {
            left: of.mean? / without,
            half_width: of.half_width.map(|half| half / without),
        })
    }

    /// The share that the correction of the solve point before left on rows that came later.
    #[must_use]
    pub(crate) fn on_later_rows(&self) -> Option<ErrorShare> {
        let of = self.evidence.as_ref()?;
        let without = of.error_without.filter(|without| *without > 0.0)?;
        Some(ErrorShare {
            left: of.error? / without,
            half_width: of.relative_half_width,
        })
    }

    /// The relative error of nearest rounding, where W~ was rounded under R.
    #[must_use]
    pub(crate) fn rounded_to_nearest(&self) -> Option<f64> {
        self.rounding.as_ref()?.error.as_ref()?.error_nearest
    }
}

impl ReportedGeneration {
    /// Number of rows of the layer that has most.
    #[must_use]
    pub(crate) fn rows(&self) -> u64 {
        let rows = self.layers.iter().map(|layer| layer.rows);
        rows.max().unwrap_or_default()
    }

    /// The number of layers that are corrected.
    #[must_use]
    pub(crate) fn corrected(&self) -> usize {
        let layers = self.layers.iter();
        layers.filter(|layer| layer.is_corrected()).count()
    }

    /// The formats of W~: every grid or type that occurs.
    #[must_use]
    pub(crate) fn quantizers(&self) -> String {
        let mut all: Vec<&str> = self.layers.iter().map(|of| of.quantizer.as_str()).collect();
        all.sort_unstable();
        all.dedup();
        all.join(", ")
    }
}

/// The mean; `None` where there are no numbers.
#[must_use]
pub(crate) fn mean(of: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for value in of {
        sum += value;
        count += 1.0;
    }
    (count > 0.0).then(|| sum / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn layer(fields: serde_json::Value) -> ReportedLayer {
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn a_layer_without_a_solution_has_no_error() {
        let zeros = json!({"relative_without": 0.0, "relative_with": 0.0});
        let starved = layer(json!({"name": "x", "status": "starved", "error": zeros}));
        assert_eq!(starved.relative(), None);
        assert_eq!((starved.left(), starved.is_corrected()), (None, false));
        let exact = layer(json!({"status": "nothing-to-correct", "error": zeros}));
        assert_eq!(exact.left(), None);
        assert!(exact.relative().is_some() && !exact.is_corrected());
    }

    #[test]
    fn shares_are_of_the_error_without_correction() {
        let solved = layer(json!({
            "status": "solved", "rank_used": 8,
            "error": {"relative_without": 0.2, "relative_with": 0.05, "rounded_bf16": null},
            "held_out_error": {"mean": 3.0, "half_width": 0.6, "mean_without": 12.0},
            "evidence": {"error": 2.0, "error_without": 5.0, "relative_half_width": null},
        }));
        assert_eq!(solved.left(), Some(0.25));
        let held = solved.held_out().unwrap();
        assert!((held.left - 0.25).abs() < 1e-15);
        assert!((held.half_width.unwrap() - 0.05).abs() < 1e-15);
        let later = solved.on_later_rows().unwrap();
        assert!((later.left - 0.4).abs() < 1e-15 && later.half_width.is_none());
        let diagonal = layer(json!({
            "status": "imatrix",
            "diagonal_error": {"relative_without": 0.2, "relative_with": 0.1},
        }));
        assert_eq!(diagonal.relative().unwrap().kind, ErrorKind::Diagonal);
        let window = layer(json!({
            "status": "solved",
            "window_error": {"relative_without": 0.2, "relative_with": 0.1},
        }));
        assert_eq!(window.relative().unwrap().kind, ErrorKind::Window);
        assert_eq!(mean([].into_iter()), None);
        assert_eq!(mean([1.0, 2.0].into_iter()), Some(1.5));
    }
}
