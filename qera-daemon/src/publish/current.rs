//! The generation that `current` names, with the part of its manifest that a run needs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::disk::read_if_there;
use crate::error::Fatal;
use crate::publish::base_files::BaseFiles;
use crate::publish::forms::AdapterForms;
use crate::publish::manifest::Fingerprints;
use crate::publish::manifest_seal::{MANIFEST, ManifestSeal, seal_of};
use crate::publish::out_folder::OutFolder;
use crate::publish::rounded_base::RoundingChoice;
use crate::settings::publish::{AdapterForm, PublishSettings};
use crate::settings::weight_format::WeightFormat;
use crate::weights::gguf::layer_names::GgufLayerPlace;

/// The part of the current generation's manifest that a run needs.
#[derive(Debug, Deserialize)]
pub(crate) struct Current {
    /// Fingerprints of what the generation belongs to.
    pub(crate) fingerprints: Fingerprints,
    /// The rows that it was made from.
    pub(crate) inputs: CurrentInputs,
    /// Settings of what it corrects.
    pub(crate) settings: CurrentSettings,
    /// The forms in which it is written.
    #[serde(default = "peft_alone")]
    pub(crate) forms: BTreeSet<AdapterForm>,
    /// Whether each layer has a rank of its own.
    #[serde(default)]
    pub(crate) ragged: bool,
    /// The layers of the generation.
    #[serde(default)]
    pub(crate) layers: Vec<CurrentLayer>,
    /// The generation's number; `None` in manifests from before there were seals.
    #[serde(default)]
    generation: Option<u64>,
    /// What the files of the bases held, by the bases' folders.
    #[serde(default)]
    pub(crate) bases: BTreeMap<String, BaseFiles>,
}

/// The forms of a generation whose manifest names none.
pub(crate) fn peft_alone() -> BTreeSet<AdapterForm> {
    BTreeSet::from([AdapterForm::Peft])
}

/// A layer of the current generation.
#[derive(Debug, Deserialize)]
pub(crate) struct CurrentLayer {
    /// The layer's name.
    pub(crate) name: String,
    /// The statistic that replaced rows, if one did.
    #[serde(default)]
    pub(crate) statistic: Option<String>,
    /// The layer's place in the GGUF, where one is written.
    #[serde(default)]
    pub(crate) gguf: Option<GgufLayerPlace>,
    /// The layer's name in mlx-lm, where its files are written.
    #[serde(default)]
    pub(crate) mlx: Option<String>,
}

/// Settings of what a generation corrects.
#[derive(Debug, Deserialize)]
pub(crate) struct CurrentSettings {
    /// The format in which W~ is stored.
    #[serde(flatten)]
    pub(crate) format: WeightFormat,
    /// How W~ was rounded; `None` for nearest rounding.
    #[serde(default)]
    pub(crate) rounding: Option<RoundingChoice>,
}

/// The rows that a generation was made from.
#[derive(Debug, Deserialize)]
pub(crate) struct CurrentInputs {
    /// Number of the last shard that counted.
    pub(crate) journal_position: u64,
    /// Digest of the shards up to that one.
    pub(crate) journal_digest: String,
    /// Whether the generation was solved cold from all of these shards.
    pub(crate) drained: bool,
}

impl Current {
    /// Reads a manifest; `None` where it is damaged, or of a program that writes other manifests.
    #[must_use]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        match seal_of(bytes) {
            ManifestSeal::Broken => None,
            ManifestSeal::Whole | ManifestSeal::Unsealed => serde_json::from_slice(bytes).ok(),
        }
    }

    /// Whether the generation is written in the forms that these settings ask for, with today's
    /// names and row orders. These may have changed, as config.json may have been corrected.
    #[must_use]
    pub(crate) fn is_written_as(&self, settings: &PublishSettings, forms: &AdapterForms) -> bool {
        let own_gguf = self.layers.iter().map(|layer| layer.gguf.as_ref());
        let own_mlx = self.layers.iter().map(|layer| layer.mlx.as_deref());
        let gguf = forms.gguf.as_ref();
        let mlx = forms.mlx.as_ref();
        self.forms == settings.formats
            && self.ragged == settings.ragged
            && gguf.is_none_or(|of| own_gguf.eq(of.layers.iter().map(Some)))
            && mlx.is_none_or(|of| own_mlx.eq(of.layers.iter().map(|of| Some(of.name.as_str()))))
    }
}

/// The current generation of a folder. `None` where there is none, or its manifest is damaged or of
/// a program that writes other manifests.
///
/// # Errors
/// [`Fatal::Io`] for a manifest that the disk does not give.
pub(crate) fn current(out: &OutFolder) -> Result<Option<Current>, Fatal> {
    in_folder(&out.path.join("current"))
}

/// The generation that says what the folder belongs to: the current one, or the newest other one
/// where the current manifest is damaged.
///
/// # Errors
/// The manifest cannot be read, as for [`current`].
pub(crate) fn belongs_to(out: &OutFolder) -> Result<Option<Current>, Fatal> {
    if let Some(current) = current(out)? {
        return Ok(Some(current));
    }
    if out.current_generation()?.is_none() {
        return Ok(None);
    }
    for number in out.numbers()?.into_iter().rev() {
        let found = in_folder(&out.generation(number))?;
        let is_here = |of: &Current| of.generation.is_none_or(|said| said == number);
        if let Some(found) = found.filter(is_here) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn in_folder(folder: &Path) -> Result<Option<Current>, Fatal> {
    let Some(bytes) = read_if_there(&folder.join(MANIFEST))? else {
        return Ok(None);
    };
    Ok(Current::parse(&bytes))
}
