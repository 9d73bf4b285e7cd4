//! The part of `qera_manifest.json` that the check reads: what an adapter says of itself. In a
//! manifest of another version only missing fields are errors.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::publish::base_files::BaseFiles;
use crate::publish::current::peft_alone;
use crate::publish::generation_files::Digests;
use crate::publish::manifest::Fingerprints;
use crate::publish::rounded_base::RoundingChoice;
use crate::settings::dotted::match_start;
use crate::settings::publish::AdapterForm;
use crate::settings::weight_format::WeightFormat;
use crate::weights::gguf::layer_names::GgufLayerPlace;

/// What the manifest claims.
#[derive(Debug, Deserialize)]
pub(crate) struct ManifestClaims {
    /// Fingerprints of what the adapter belongs to.
    pub(crate) fingerprints: Fingerprints,
    /// How the adapter was made.
    pub(crate) settings: ClaimedSettings,
    /// The file that the adapter corrects, where W~ was given.
    #[serde(default)]
    pub(crate) quantized: Option<ClaimedFile>,
    /// The GGUF base, where there is one.
    #[serde(default)]
    pub(crate) gguf_base: Option<ClaimedGguf>,
    /// The class that serves the adapter.
    #[serde(default)]
    pub(crate) serving: ClaimedServing,
    /// The forms in which the adapter is written.
    #[serde(default = "peft_alone")]
    pub(crate) forms: BTreeSet<AdapterForm>,
    /// Every layer that was selected.
    pub(crate) layers: Vec<LayerClaim>,
    /// The generation's number; `None` in manifests from before there were seals.
    #[serde(default)]
    pub(crate) generation: Option<u64>,
    /// What the files beside the manifest hold.
    #[serde(default)]
    pub(crate) files: Digests,
    /// What the files of the bases hold, by the bases' folders.
    #[serde(default)]
    pub(crate) bases: BTreeMap<String, BaseFiles>,
}

/// The file that an adapter corrects.
#[derive(Debug, Deserialize)]
pub(crate) struct ClaimedFile {
    /// The file's path as it was given.
    pub(crate) path: String,
}

/// What a manifest says of a GGUF base.
#[derive(Debug, Deserialize)]
pub(crate) struct ClaimedGguf {
    /// BLAKE3 of the file.
    pub(crate) blake3: String,
}

/// The class that serves an adapter.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ClaimedServing {
    /// Modules of the base that this class does not have, with everything beneath them.
    #[serde(default)]
    outside: Vec<String>,
}

/// How an adapter was made.
#[derive(Debug, Deserialize)]
pub(crate) struct ClaimedSettings {
    /// Method name.
    pub(crate) method: String,
    /// The format in which the corrected weights are stored.
    #[serde(flatten)]
    pub(crate) format: WeightFormat,
    /// How W~ was rounded; `None` for nearest rounding.
    #[serde(default)]
    pub(crate) rounding: Option<RoundingChoice>,
}

/// What a manifest says of a layer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct LayerClaim {
    /// The layer's name in the checkpoint and in the base.
    pub(crate) name: String,
    /// The layer's name in the model that is served, where it differs.
    #[serde(default)]
    served_as: Option<String>,
    /// The layer's place in the GGUF adapter, where one is written.
    #[serde(default)]
    pub(crate) gguf: Option<GgufLayerPlace>,
    /// The layer's name in mlx-lm, where its files are written.
    #[serde(default)]
    pub(crate) mlx: Option<String>,
    /// Whether its weight is stored [in_features, out_features].
    #[serde(default)]
    pub(crate) transposed: bool,
    /// Width of its input.
    pub(crate) in_features: usize,
    /// Width of its output.
    pub(crate) out_features: usize,
    /// The layer's status: whether it was solved.
    pub(crate) status: String,
    /// Rank that is used.
    pub(crate) rank_used: usize,
    /// The layer's output error; `None` where an imatrix stands in for rows.
    #[serde(default)]
    pub(crate) error: ErrorClaim,
    /// The layer's diagonal error, where an imatrix stands in for rows.
    #[serde(default)]
    pub(crate) diagonal_error: Option<ErrorClaim>,
    /// Its error on the window's rows, where a sketch stood for R.
    #[serde(default)]
    pub(crate) window_error: Option<ErrorClaim>,
}

/// A layer's error; a field is null where it is not finite.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ErrorClaim {
    without: Option<f64>,
    with: Option<f64>,
}

impl ManifestClaims {
    /// Reads the claims of a manifest.
    ///
    /// # Errors
    /// Why the bytes are no manifest.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The layers under the adapter's names for them.
    #[must_use]
    pub(crate) fn by_served_name(&self) -> BTreeMap<&str, &LayerClaim> {
        self.layers.iter().map(|l| (l.served_as(), l)).collect()
    }

    /// Whether the method makes no correction.
    #[must_use]
    pub(crate) fn corrects_nothing(&self) -> bool {
        self.settings.method == "w-only"
    }
}

impl ClaimedServing {
    /// Whether this class has a module of the base.
    #[must_use]
    pub(crate) fn has(&self, module: &str) -> bool {
        let mut outside = self.outside.iter();
        !outside.any(|begin| match_start(begin, module).is_some())
    }
}

impl LayerClaim {
    /// The adapter's name for the layer.
    #[must_use]
    pub(crate) fn served_as(&self) -> &str {
        self.served_as.as_deref().unwrap_or(&self.name)
    }

    /// The layer's name in this form; `None` where that form was not written.
    #[must_use]
    pub(crate) fn name_in(&self, form: AdapterForm) -> Option<&str> {
        match form {
            AdapterForm::Peft => Some(self.served_as()),
            AdapterForm::Gguf => self.gguf.as_ref().map(|place| place.tensor.as_str()),
            AdapterForm::Mlx => self.mlx.as_deref(),
        }
    }

    /// Whether the layer is said to have been solved, with or without something to correct.
    #[must_use]
    pub(crate) fn is_solved(&self) -> bool {
        ["solved", "imatrix", "nothing-to-correct"].contains(&self.status.as_str())
    }

    /// Whether the manifest says that the correction takes something off the error.
    #[must_use]
    pub(crate) fn gains(&self) -> bool {
        let others = self.diagonal_error.as_ref().or(self.window_error.as_ref());
        let ErrorClaim { without, with } = others.unwrap_or(&self.error);
        // An error that is not finite does not excuse zeros.
        let gain = without
            .zip(*with)
            .is_none_or(|(without, with)| without > with);
        let corrected = ["solved", "imatrix"].contains(&self.status.as_str());
        corrected && self.rank_used > 0 && gain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn claims(layer: &Value) -> ManifestClaims {
        let manifest = json!({
            "fingerprints": {"checkpoint": "c", "settings": "s", "base": null},
            "settings": {"method": "exact", "quantizer": "mxint4", "block_size": 32},
            "layers": [layer],
        });
        ManifestClaims::parse(manifest.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_layer_gains_what_its_errors_say() {
        let layer = |status: &str, rank: usize, without: Value, with: Value| {
            json!({"name": "h.0", "served_as": "model.h.0", "in_features": 4, "out_features": 2,
                "status": status, "rank_used": rank, "error": {"without": without, "with": with}})
        };
        for (status, rank, without, with, gains) in [
            ("solved", 2, json!(2.0), json!(1.0), true),
            ("solved", 2, json!(2.0), json!(2.0), false),
            ("solved", 0, json!(2.0), json!(1.0), false),
            ("solved", 2, json!(null), json!(1.0), true),
            ("starved", 2, json!(2.0), json!(1.0), false),
            ("imatrix", 2, json!(2.0), json!(1.0), true),
            ("imatrix", 2, json!(2.0), json!(2.0), false),
        ] {
            let found = claims(&layer(status, rank, without, with));
            assert_eq!(found.layers[0].gains(), gains, "{found:?}");
            assert_eq!(found.by_served_name()["model.h.0"].name, "h.0");
            assert!(!found.corrects_nothing());
        }
        let mut given = layer("imatrix", 2, json!(2.0), json!(1.0));
        let given = given.as_object_mut().unwrap();
        let error = given.remove("error").unwrap();
        given.insert("diagonal_error".into(), error);
        let found = claims(&json!(given));
        assert!(found.layers[0].is_solved() && found.layers[0].gains());
        let mut bare = layer("waiting", 0, json!(0), json!(0));
        bare.as_object_mut().unwrap().remove("served_as");
        let found = claims(&bare);
        assert_eq!(found.layers[0].served_as(), "h.0");
        assert!(!found.layers[0].is_solved());
    }
}
