//! What an adapter's manifest says of the errors of its layers, and of which rows they are.

use std::path::Path;

use serde::Deserialize;

use crate::disk::read_if_there;
use crate::publish::check::adapter_folder::AdapterFolder;
use crate::publish::check::findings::Findings;
use crate::publish::manifest_seal::MANIFEST;
use crate::settings::publish::AdapterForm;
use crate::weights::gguf::layer_names::GgufLayerPlace;

/// What the manifest says.
#[derive(Debug, Deserialize)]
pub(crate) struct ReplayClaims {
    fingerprints: ClaimedModel,
    inputs: ClaimedInputs,
    layers: Vec<ClaimedLayer>,
}

#[derive(Debug, Deserialize)]
struct ClaimedModel {
    #[serde(default)]
    model: Option<String>,
}

/// Of which shards its figures are.
#[derive(Debug, Deserialize)]
pub(crate) struct ClaimedInputs {
    /// How many.
    #[serde(default)]
    pub(crate) shards: usize,
    /// BLAKE3 chained over their contents.
    #[serde(default)]
    pub(crate) journal_digest: String,
}

/// What it says of a layer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ClaimedLayer {
    /// Its name in the checkpoint.
    pub(crate) name: String,
    /// Its name in the adapter.
    #[serde(default)]
    served_as: Option<String>,
    /// Its place in a GGUF adapter.
    #[serde(default)]
    pub(crate) gguf: Option<GgufLayerPlace>,
    /// Its name in mlx-lm.
    #[serde(default)]
    mlx: Option<String>,
    /// The method that made its correction.
    #[serde(default)]
    pub(crate) method: String,
    /// Rows that its statistics are the mean of.
    #[serde(default)]
    pub(crate) rows: u64,
    /// tr(R W W^T).
    #[serde(default)]
    pub(crate) output_power: Option<f64>,
    /// Its error; none where an imatrix stands in for rows.
    #[serde(default)]
    pub(crate) error: Option<ClaimedError>,
}

/// What it says of a layer's error.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct ClaimedError {
    /// Without correction.
    pub(crate) without: f64,
    /// With the factors as they were written.
    pub(crate) rounded: f64,
    /// How far that may be off, relative, because R is.
    #[serde(default)]
    pub(crate) uncertainty: Option<f64>,
}

impl ReplayClaims {
    /// The manifest of an adapter; none where there is none that can be read, or none of these
    /// files, which the check of them says.
    #[must_use]
    pub(crate) fn of(adapter: &Path) -> Option<Self> {
        let folder = AdapterFolder::open(adapter, &mut Findings::default());
        folder.manifest.as_ref()?;
        let bytes = read_if_there(&folder.folder.join(MANIFEST)).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Which checkpoint the adapter was made with.
    #[must_use]
    pub(crate) fn model(&self) -> Option<&str> {
        self.fingerprints.model.as_deref()
    }

    /// Of which shards its figures are.
    #[must_use]
    pub(crate) const fn inputs(&self) -> &ClaimedInputs {
        &self.inputs
    }

    /// What it says of the layer that a form calls so.
    #[must_use]
    pub(crate) fn layer(&self, form: AdapterForm, name: &str) -> Option<&ClaimedLayer> {
        let mut layers = self.layers.iter();
        layers.find(|layer| layer.name_in(form) == Some(name))
    }
}

impl ClaimedLayer {
    fn name_in(&self, form: AdapterForm) -> Option<&str> {
        match form {
            AdapterForm::Peft => Some(self.served_as.as_ref().unwrap_or(&self.name)),
            AdapterForm::Gguf => self.gguf.as_ref().map(|place| place.tensor.as_str()),
            AdapterForm::Mlx => self.mlx.as_deref(),
        }
    }
}
