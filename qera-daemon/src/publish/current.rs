//! The generation that `current` names, as far as its manifest is read.

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

/// What is read of the current generation's manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Current {
    /// What it belongs to.
    pub(crate) fingerprints: Fingerprints,
    /// What it was made from.
    pub(crate) inputs: CurrentInputs,
    /// What it corrects.
    pub(crate) settings: CurrentSettings,
    /// In which forms it is written.
    #[serde(default = "peft_alone")]
    pub(crate) forms: BTreeSet<AdapterForm>,
    /// Whether each layer has a rank of its own.
    #[serde(default)]
    pub(crate) ragged: bool,
    /// Its layers.
    #[serde(default)]
    pub(crate) layers: Vec<CurrentLayer>,
    /// Its number; none of programs that sealed nothing.
    #[serde(default)]
    generation: Option<u64>,
    /// What the files of bases held, by their folders.
    #[serde(default)]
    pub(crate) bases: BTreeMap<String, BaseFiles>,
}

/// The forms of a manifest that does not name them.
pub(crate) fn peft_alone() -> BTreeSet<AdapterForm> {
    BTreeSet::from([AdapterForm::Peft])
}

/// A layer of it.
#[derive(Debug, Deserialize)]
pub(crate) struct CurrentLayer {
    /// Its name.
    pub(crate) name: String,
    /// What stands in for rows.
    #[serde(default)]
    pub(crate) statistic: Option<String>,
    /// Its place in the GGUF, where one is written.
    #[serde(default)]
    pub(crate) gguf: Option<GgufLayerPlace>,
    /// Its name in mlx-lm, where its files are written.
    #[serde(default)]
    pub(crate) mlx: Option<String>,
}

/// What it corrects.
#[derive(Debug, Deserialize)]
pub(crate) struct CurrentSettings {
    /// What W~ is stored in.
    #[serde(flatten)]
    pub(crate) format: WeightFormat,
    /// How it was rounded; none for nearest.
    #[serde(default)]
    pub(crate) rounding: Option<RoundingChoice>,
}

/// What it was made from.
#[derive(Debug, Deserialize)]
pub(crate) struct CurrentInputs {
    /// Number of the last shard that counted.
    pub(crate) journal_position: u64,
    /// Digest of the shards up to it.
    pub(crate) journal_digest: String,
    /// Whether it is the last word on them.
    pub(crate) drained: bool,
}

impl Current {
    /// Reads a manifest; `None` where it is damaged or of a program that writes other ones.
    #[must_use]
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        match seal_of(bytes) {
            ManifestSeal::Broken => None,
            ManifestSeal::Whole | ManifestSeal::Unsealed => serde_json::from_slice(bytes).ok(),
        }
    }

    /// Whether it is written in the forms that these settings ask for, under the names and in the
    /// row orders that those have by now: what config.json says of heads may have been corrected.
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

/// The current generation of a folder; none where there is none, or its manifest is damaged or of a
/// program that writes other ones.
///
/// # Errors
/// [`Fatal::Io`] for a manifest that the disk does not give.
pub(crate) fn current(out: &OutFolder) -> Result<Option<Current>, Fatal> {
    in_folder(&out.path.join("current"))
}

/// What the folder belongs to: its current generation or, where the manifest of that is damaged,
/// the newest other one.
///
/// # Errors
/// As for [`current`].
pub(crate) fn belongs_to(out: &OutFolder) -> Result<Option<Current>, Fatal> {
    if let Some(current) = current(out)? {
        return Ok(Some(current));
    }
    if out.current_generation().is_none() {
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
