//! `OUT/base`: the checkpoint with W~ in place of the selected weights, as an ordinary Hugging Face
//! folder, so that any engine can load what the adapter corrects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::mapping::Mapping;
use crate::disk::new_file::NewFile;
use crate::disk::open_file::OpenFile;
use crate::disk::presence::exists;
use crate::disk::{read, write_json, write_synced};
use crate::error::Fatal;
use crate::formats::gguf::header::GgufHeader;
use crate::formats::safetensors::header::{Header, HeaderError};
use crate::formats::safetensors::writer::{WriteError, Writer};
use crate::publish::base_worth::{BaseWorth, README};
use crate::publish::companions::Companions;
use crate::publish::gguf_base::record::GgufRecord;
use crate::publish::out_folder::OutFolder;
use crate::publish::packed_base::record::PackedRecord;
use crate::publish::rounded_base::RoundedBase;
use crate::publish::sample::digest_of_layer;
use crate::settings::publish::{BaseForm, GGUF_FILE};
use crate::settings::rounding::{Rounding, RoundingSettings};
use crate::weights::Weights;
use crate::weights::opening::BASE_RECORD;

/// Name of the record of what a base was made from.
pub(crate) const RECORD: &str = BASE_RECORD;
/// Name of the file with the weights.
pub(crate) const MODEL: &str = "model.safetensors";
/// Version of the record. In version 1 all tensors were bf16, whatever the checkpoint's were, and
/// few of the files beside the weights were there. Version 3 is that of a W~ that was rounded under
/// R, so that a program that does not know such a W~ does not take it for another.
const VERSION: u32 = 2;
const VERSION_OF_ROUNDED: u32 = 3;

const fn first_version() -> u32 {
    1
}

/// What a base folder was made from, and what it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// Version of the record; version 1 did not write it.
    #[serde(default = "first_version")]
    version: u32,
    /// `mxint4/32`, say.
    pub(crate) quantizer: String,
    /// Fingerprint of the selected full-precision weights.
    pub(crate) checkpoint: String,
    /// Fingerprint of all other tensors.
    pub(crate) others: String,
    /// Layers that hold W~.
    pub(crate) layers: Vec<String>,
    /// Which W~ it is, where that depends on rows; absent where W~ is rounded to nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rounded: Option<RoundedBase>,
}

/// A base's record as it is written to disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BaseRecord {
    /// What the base was made from.
    #[serde(flatten)]
    pub(crate) base: Base,
    /// BLAKE3 of some rows of each layer's W~, where W~ depends on rows. The digest of the whole W~
    /// is over codes and scales, which cannot be read off the tensors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) samples: BTreeMap<String, String>,
    /// How W~ is packed, where the base does not hold it as numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) packed: Option<PackedRecord>,
    /// What the file holds, where the base is a GGUF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gguf: Option<GgufRecord>,
}

impl BaseRecord {
    /// Reads the record of a base folder.
    ///
    /// # Errors
    /// The bytes are no record, for the reason given.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The part of a base's record that a run needs right after writing it.
    #[must_use]
    pub(crate) fn of(base: &Base) -> Self {
        Self {
            base: base.clone(),
            samples: BTreeMap::new(),
            packed: None,
            gguf: None,
        }
    }

    /// The record of a base that holds W~ of these weights as numbers.
    ///
    /// # Errors
    /// [`Fatal`] where W~ of a layer cannot be had.
    pub(crate) fn new(base: &Base, weights: &Weights) -> Result<Self, Fatal> {
        let layers = base.layers.iter().enumerate();
        let rounded = layers.filter(|_| base.rounded.is_some());
        let samples =
            rounded.map(|(layer, name)| Ok((name.clone(), digest_of_layer(weights, layer)?)));
        Ok(Self {
            base: base.clone(),
            samples: samples.collect::<Result<_, Fatal>>()?,
            packed: None,
            gguf: None,
        })
    }
}

impl Base {
    /// The base that this run would write, as far as it is known before W~ is made.
    #[must_use]
    pub(crate) fn new(weights: &Weights, rounding: &RoundingSettings, fingerprint: &str) -> Self {
        let rounded = RoundedBase::new(weights, rounding);
        Self {
            version: version_of(rounded.as_ref()),
            quantizer: weights.format().to_string(),
            checkpoint: fingerprint.to_owned(),
            others: weights.fingerprint_of_others(),
            layers: weights.layers().iter().map(|l| l.name.clone()).collect(),
            rounded,
        }
    }

    /// Whether all of it is known, because W~ is made.
    #[must_use]
    pub(crate) fn is_made(&self) -> bool {
        let rounded = self.rounded.as_ref();
        rounded.is_none_or(|rounded| rounded.digest.is_some())
    }

    /// The digest of W~, where W~ depends on rows.
    #[must_use]
    pub(crate) fn digest(&self) -> Option<&str> {
        self.rounded.as_ref()?.digest.as_deref()
    }

    /// A fingerprint of quantizer, rounding, layers and weights, which every manifest has.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> String {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        format!("blake3:{}", blake3::hash(&bytes).to_hex())
    }

    /// Compares this base with the one that is there already, and takes over what only that one
    /// knows. A run without `--emit-base` is refused as well where the folder's base has another
    /// quantizer, because its adapter would be served on the wrong weights.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] when the base there was made from something else.
    pub(crate) fn present(
        &self,
        out: &OutFolder,
        form: BaseForm,
    ) -> Result<Option<BaseRecord>, Fatal> {
        let folder = out.path.join(form.folder());
        if !exists(&folder)? {
            return Ok(None);
        }
        let refuse = |reason| Fatal::StateRefused {
            path: folder.clone(),
            reason,
        };
        let unread = |e: String| refuse(format!("its {RECORD} cannot be read: {e}"));
        let record = read(&folder.join(RECORD)).map_err(|e| unread(e.to_string()))?;
        let found = BaseRecord::parse(&record).map_err(|e| unread(e.to_string()))?;
        if let Some(reason) = self.differs(&found.base) {
            return Err(refuse(reason));
        }
        let (packed, gguf) = (found.packed.is_some(), found.gguf.is_some());
        if packed != (form == BaseForm::CompressedTensors) || gguf != (form == BaseForm::Gguf) {
            let reason =
                format!("its {RECORD} is that of a base in another form; remove the folder");
            return Err(refuse(reason));
        }
        let damaged = |file: &str, error: String| {
            refuse(format!("its {file} is damaged: {error}; remove the folder"))
        };
        match form {
            BaseForm::Gguf => check_gguf_header(&folder.join(GGUF_FILE))
                .map_err(|error| damaged(GGUF_FILE, error.to_string()))?,
            BaseForm::HuggingFace | BaseForm::CompressedTensors => {
                check_header(&folder.join(MODEL))
                    .map_err(|error| damaged(MODEL, error.to_string()))?;
            }
        }
        Ok(Some(found))
    }

    /// Why the base that was found is not this one; `None` where it is.
    fn differs(&self, found: &Self) -> Option<String> {
        let version = version_of(found.rounded.as_ref());
        Some(if found.version != version {
            format!(
                "has version {}, this program writes version {version} (tensors keep their types): choose another --out, or remove the folder",
                found.version
            )
        } else if found.quantizer != self.quantizer {
            format!(
                "was made with {}, this run uses {}: choose another --out",
                found.quantizer, self.quantizer
            )
        } else if found.layers != self.layers {
            format!(
                "holds W~ of {} layers, this run selects {}: choose another --out",
                found.layers.len(),
                self.layers.len()
            )
        } else if found.checkpoint != self.checkpoint || found.others != self.others {
            "was made from other weights: choose another --out".into()
        } else {
            let differs = match (&self.rounded, &found.rounded) {
                (Some(own), Some(found)) => own.differs(found, &self.layers)?,
                (None, None) => return None,
                (own, found) => format!(
                    "was rounded by {}, this run rounds by {}",
                    rounding_of(found.as_ref()),
                    rounding_of(own.as_ref())
                ),
            };
            format!("{differs}: choose another --out, or solve from the state that made it")
        })
    }
}

const fn version_of(rounded: Option<&RoundedBase>) -> u32 {
    match rounded {
        Some(_) => VERSION_OF_ROUNDED,
        None => VERSION,
    }
}

/// How a base was rounded, according to its record.
#[must_use]
pub(crate) fn rounding_of(rounded: Option<&RoundedBase>) -> &str {
    rounded.map_or(Rounding::Nearest.name(), |of| &of.settings.name)
}

/// Checks that a file is as long as its header says.
fn check_header(path: &Path) -> Result<(), HeaderError> {
    let file = OpenFile::open(path)?;
    let bytes = file.identity()?.bytes;
    Header::read(file.reader(), bytes).map(drop)
}

/// Checks the same of a GGUF.
fn check_gguf_header(path: &Path) -> Result<(), Box<dyn core::error::Error>> {
    let bytes = Mapping::open(path)?;
    Ok(GgufHeader::parse(&bytes).map(drop)?)
}

/// Writes `OUT/base` once, and renames it into place.
///
/// # Errors
/// [`Fatal::Io`], and [`Fatal::Checkpoint`] for a weight that is NaN or infinite.
pub(crate) fn emit(
    out: &OutFolder,
    weights: &Weights,
    base: &Base,
    worth: &BaseWorth,
    companions: &Companions,
) -> Result<PathBuf, Fatal> {
    let unfinished = out.begin("")?;
    let written = || {
        // Companions are copied first, so that none of them replaces a file that is written here.
        companions.copy(&unfinished)?;
        write(&unfinished, weights, base)?;
        write_synced(&unfinished.join(README), worth.text().as_bytes())
    };
    written().inspect_err(|_| out.abandon(""))?;
    out.rename_in(&unfinished, "", BaseForm::HuggingFace.folder())
}

fn write(folder: &Path, weights: &Weights, base: &Base) -> Result<(), Fatal> {
    let tensors = weights.model(|_| false)?;
    let plans: Vec<_> = tensors.iter().map(|t| t.plan.clone()).collect();
    let path = folder.join(MODEL);
    let failed = WriteError::of(&path);
    let file = NewFile::create(&path)?;
    let mut writer = Writer::begin(file, &BTreeMap::new(), &plans).map_err(&failed)?;
    for tensor in &tensors {
        weights.model_bytes(tensor, |bytes| writer.put(bytes).map_err(&failed))?;
        writer.end().map_err(&failed)?;
    }
    writer.finish().map_err(&failed)?.sync()?;
    write_json(&folder.join(RECORD), &BaseRecord::new(base, weights)?)
}
