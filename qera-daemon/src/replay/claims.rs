//! What an adapter's manifest says of its layers' errors, and of the rows that they were measured
//! on.

use std::path::Path;

use serde::Deserialize;

use crate::disk::read_if_there;
use crate::publish::check::adapter_folder::AdapterFolder;
use crate::publish::check::findings::Findings;
use crate::publish::manifest_seal::MANIFEST;
use crate::settings::publish::AdapterForm;
use crate::weights::gguf::layer_names::GgufLayerPlace;

/// The parts of a manifest that a replay is compared with.
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

/// The shards that the manifest's figures are of.
#[derive(Debug, Deserialize)]
pub(crate) struct ClaimedInputs {
    /// How many shards there are.
    #[serde(default)]
    pub(crate) shards: usize,
    /// A BLAKE3 chain over their contents.
    #[serde(default)]
    pub(crate) journal_digest: String,
}

/// What a manifest says of a layer.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ClaimedLayer {
    /// The layer's name in the checkpoint.
    pub(crate) name: String,
    /// The layer's name in the adapter.
    #[serde(default)]
    served_as: Option<String>,
    /// The layer's place in a GGUF adapter.
    #[serde(default)]
    pub(crate) gguf: Option<GgufLayerPlace>,
    /// The layer's name in mlx-lm.
    #[serde(default)]
    mlx: Option<String>,
    /// The method of its correction.
    #[serde(default)]
    pub(crate) method: String,
    /// Number of rows that its statistics are the mean of.
    #[serde(default)]
    pub(crate) rows: u64,
    /// tr(R W W^T).
    #[serde(default)]
    pub(crate) output_power: Option<f64>,
    /// The layer's error; `None` where an imatrix stands in for rows.
    #[serde(default)]
    pub(crate) error: Option<ClaimedError>,
    /// Its error on the window's rows, where a sketch stood for R.
    #[serde(default)]
    pub(crate) window_error: Option<ClaimedError>,
}

/// A layer's error, as a manifest states it.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct ClaimedError {
    /// The error without correction.
    pub(crate) without: f64,
    /// The error with the factors as they were written.
    pub(crate) rounded: f64,
    /// The relative uncertainty of that, which follows from R's.
    #[serde(default)]
    pub(crate) uncertainty: Option<f64>,
    /// The power of the outputs of the same rows, where these are the window's.
    #[serde(default)]
    pub(crate) power: Option<f64>,
}

/// The figures of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimedFigures {
    /// Its error.
    pub(crate) error: ClaimedError,
    /// The power of its outputs.
    pub(crate) power: f64,
    /// Whether they are of the window's rows alone, because R was not gathered.
    pub(crate) of_window: bool,
}

/// The method whose figures are of every row, where it gathers R.
const BY_R: &str = "exact";

impl ReplayClaims {
    /// The claims of an adapter's manifest. `None` where there is no readable one, or it is not of
    /// these files, which the check of the files tells.
    #[must_use]
    pub(crate) fn of(adapter: &Path) -> Option<Self> {
        let folder = AdapterFolder::open(adapter, &mut Findings::default());
        folder.manifest.as_ref()?;
        let bytes = read_if_there(&folder.folder.join(MANIFEST)).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// The checkpoint that the adapter was made with.
    #[must_use]
    pub(crate) fn model(&self) -> Option<&str> {
        self.fingerprints.model.as_deref()
    }

    /// The shards that the figures are of.
    #[must_use]
    pub(crate) const fn inputs(&self) -> &ClaimedInputs {
        &self.inputs
    }

    /// The claims about the layer that has this name in a form.
    #[must_use]
    pub(crate) fn layer(&self, form: AdapterForm, name: &str) -> Option<&ClaimedLayer> {
        let mut layers = self.layers.iter();
        layers.find(|layer| layer.name_in(form) == Some(name))
    }
}

impl ClaimedLayer {
    /// The error that it says, and whether it is of the rows of the window alone.
    #[must_use]
    pub(crate) fn figures(&self) -> Option<ClaimedFigures> {
        let (of_window, error) = match (self.error, self.window_error) {
            (Some(error), _) => (false, error),
            (None, error) => (true, error?),
        };
        Some(ClaimedFigures {
            error,
            power: self.output_power.or(error.power).unwrap_or_default(),
            of_window: of_window || self.method != BY_R,
        })
    }

    fn name_in(&self, form: AdapterForm) -> Option<&str> {
        match form {
            AdapterForm::Peft => Some(self.served_as.as_ref().unwrap_or(&self.name)),
            AdapterForm::Gguf => self.gguf.as_ref().map(|place| place.tensor.as_str()),
            AdapterForm::Mlx => self.mlx.as_deref(),
        }
    }
}
