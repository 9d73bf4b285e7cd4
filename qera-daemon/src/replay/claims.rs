//! What an adapter's manifest says of the errors of its layers, and of which rows they are.

use std::path::Path;

use serde::Deserialize;

use crate::disk::{is_folder, read_if_there};
use crate::publish::check::adapter_folder::MANIFEST;

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
    /// The manifest beside an adapter's files; none where there is none that can be read, which the
    /// check of the files says.
    #[must_use]
    pub(crate) fn beside(adapter: &Path) -> Option<Self> {
        let folder = match is_folder(adapter) {
            true => adapter,
            false => adapter.parent()?,
        };
        let bytes = read_if_there(&folder.join(MANIFEST)).ok()??;
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

    /// What it says of the layer that the adapter calls so.
    #[must_use]
    pub(crate) fn layer(&self, served_as: &str) -> Option<&ClaimedLayer> {
        let mut layers = self.layers.iter();
        layers.find(|of| of.served_as.as_deref().unwrap_or(&of.name) == served_as)
    }
}
