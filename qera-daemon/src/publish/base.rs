//! `OUT/base`: the checkpoint with W~ in place of the selected weights, as an ordinary Hugging Face
//! folder, so that any engine can load what the adapter corrects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::new_file::NewFile;
use crate::disk::open_file::OpenFile;
use crate::disk::{exists, read, write_json};
use crate::error::Fatal;
use crate::formats::safetensors::header::{Header, HeaderError};
use crate::formats::safetensors::writer::{WriteError, Writer};
use crate::publish::companions::Companions;
use crate::publish::out_folder::OutFolder;
use crate::weights::Weights;

/// Name of the record of what a base was made from.
pub(crate) const RECORD: &str = "qera_base.json";
const MODEL: &str = "model.safetensors";
/// What a base is, by its record. Of version 1 all tensors were bf16, whatever the checkpoint's were,
/// and few of the files beside the weights were there.
const VERSION: u32 = 2;

const fn first_version() -> u32 {
    1
}

/// What a base folder was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// Of what a base is; version 1 did not write it.
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
}

impl Base {
    /// What this run would write.
    #[must_use]
    pub(crate) fn new(weights: &Weights, fingerprint: &str) -> Self {
        Self {
            version: VERSION,
            quantizer: weights.format().to_string(),
            checkpoint: fingerprint.to_owned(),
            others: weights.fingerprint_of_others(),
            layers: weights.layers().iter().map(|l| l.name.clone()).collect(),
        }
    }

    /// Reads the record of a base folder.
    ///
    /// # Errors
    /// What is no record about it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Identifies quantizer, layers and weights in every manifest.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> String {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        format!("blake3:{}", blake3::hash(&bytes).to_hex())
    }

    /// Whether `OUT/base` is there already. A run without `--emit-base` into a folder whose base
    /// has another quantizer is refused as well: the adapter would be served on the wrong weights.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] when the base there was made from something else.
    pub(crate) fn present(&self, out: &OutFolder) -> Result<bool, Fatal> {
        let folder = out.path.join("base");
        if !exists(&folder) {
            return Ok(false);
        }
        let refuse = |reason| Fatal::StateRefused {
            path: folder.clone(),
            reason,
        };
        let unread = |e: String| refuse(format!("its {RECORD} cannot be read: {e}"));
        let record = read(&folder.join(RECORD)).map_err(|e| unread(e.to_string()))?;
        let found = Self::parse(&record).map_err(|e| unread(e.to_string()))?;
        if found == *self {
            check_header(&folder.join(MODEL))
                .map_err(|e| refuse(format!("its {MODEL} is damaged: {e}; remove the folder")))?;
            return Ok(true);
        }
        Err(refuse(if found.version != self.version {
            format!(
                "has version {}, this program writes version {VERSION} (tensors keep their types): choose another --out, or remove the folder",
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
        } else {
            "was made from other weights: choose another --out".into()
        }))
    }
}

/// Whether a file is as long as its header says.
fn check_header(path: &Path) -> Result<(), HeaderError> {
    let file = OpenFile::open(path)?;
    let bytes = file.identity()?.bytes;
    Header::read(file.reader(), bytes).map(drop)
}

/// Writes `OUT/base`, once, by rename.
///
/// # Errors
/// [`Fatal::Io`], and [`Fatal::Checkpoint`] for a weight that is NaN or infinite.
pub(crate) fn emit(
    out: &OutFolder,
    weights: &Weights,
    base: &Base,
    companions: &Companions,
) -> Result<PathBuf, Fatal> {
    let unfinished = out.begin("")?;
    write(&unfinished, weights, base, companions).inspect_err(|_| out.abandon(""))?;
    out.rename_in(&unfinished, "", "base")
}

fn write(
    folder: &Path,
    weights: &Weights,
    base: &Base,
    companions: &Companions,
) -> Result<(), Fatal> {
    // First, so that nothing of theirs can take the place of what is written here.
    companions.copy(folder)?;
    let tensors = weights.model()?;
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
    write_json(&folder.join(RECORD), base)
}
