//! The model that an adapter is served on: which modules it has, and how their weights are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use qera_core::dtype::decode_weights;
use serde_json::Value;

use crate::disk::read_if_there;
use crate::error::Fatal;
use crate::formats::compressed_tensors::scheme::PackShape;
use crate::formats::safetensors::header::float_dtype;
use crate::publish::base::{BaseRecord, RECORD};
use crate::publish::check::modules::modules_of;
use crate::publish::check::served_codes::ServedCodes;
use crate::publish::check::served_gguf::ServedGguf;
use crate::publish::check::served_rows::Rows;
use crate::publish::sample::SampleSize;
use crate::settings::gguf_path::is_gguf;
use crate::weights::Weights;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::layers::{module_of, tensor_of};

/// A weight of the model.
#[derive(Debug)]
pub(crate) enum ServedWeight {
    /// A tensor of floats, of this shape.
    Stored(Vec<usize>),
    /// The module is there, but its weight is no tensor of floats: it was quantized by another
    /// program, for instance.
    Packed(String),
    /// There is no such module. If a module's name ends in this one, that is given.
    Missing(Option<String>),
}

/// A model, opened for comparison.
#[derive(Debug)]
pub(crate) struct ServedModel {
    /// The model's path.
    pub(crate) path: PathBuf,
    tensors: BTreeMap<String, StoredTensor>,
    /// The served folder; `None` where this is the run's checkpoint, and the adapter is served on a
    /// base elsewhere.
    folder: Option<ServedFolder>,
}

#[derive(Debug)]
struct StoredTensor {
    /// The type's name, where it is no type of numbers.
    unread: Option<String>,
    shape: Vec<usize>,
}

#[derive(Debug)]
struct ServedFolder {
    files: ServedFiles,
    record: Option<BaseRecord>,
}

/// Whatever holds the served tensors.
#[derive(Debug)]
enum ServedFiles {
    /// A Hugging Face folder.
    HuggingFace(Checkpoint),
    /// A GGUF.
    Gguf(ServedGguf),
}

impl ServedFiles {
    const fn checkpoint(&self) -> Option<&Checkpoint> {
        match self {
            Self::HuggingFace(checkpoint) => Some(checkpoint),
            Self::Gguf(_) => None,
        }
    }
}

/// How the tensors of a checkpoint are stored.
fn stored(checkpoint: &Checkpoint) -> BTreeMap<String, StoredTensor> {
    let tensors = checkpoint.tensors.iter().map(|(name, tensor)| {
        let is_read = float_dtype(tensor.dtype).is_some();
        let stored = StoredTensor {
            unread: (!is_read).then(|| tensor.dtype.to_string()),
            shape: tensor.shape.clone(),
        };
        (name.clone(), stored)
    });
    tensors.collect()
}

/// How the tensors of a GGUF are stored.
fn stored_in_gguf(gguf: &ServedGguf) -> BTreeMap<String, StoredTensor> {
    let tensors = gguf.tensors().map(|of| {
        let stored = StoredTensor {
            unread: of.tensor.block_type().err().map(|e| e.to_string()),
            shape: of.tensor.ne.iter().rev().copied().collect(),
        };
        (of.name, stored)
    });
    tensors.collect()
}

impl ServedModel {
    /// Opens the model in a folder, or a GGUF; only headers are read.
    ///
    /// # Errors
    /// [`Fatal`] for a path that is no checkpoint, and for a base's record that cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self, Fatal> {
        let files = match is_gguf(path)? {
            true => ServedFiles::Gguf(ServedGguf::open(path)?),
            false => ServedFiles::HuggingFace(Checkpoint::open(path)?),
        };
        let folder = match &files {
            ServedFiles::HuggingFace(checkpoint) => checkpoint.folder(),
            ServedFiles::Gguf(_) => path.parent().unwrap_or(Path::new("")),
        };
        let at = folder.join(RECORD);
        let record = read_if_there(&at)?.map(|bytes| BaseRecord::parse(&bytes));
        let record = record.transpose().map_err(|e| Fatal::Checkpoint {
            path: at,
            reason: format!("cannot be read: {e}"),
        })?;
        Ok(Self {
            path: path.to_path_buf(),
            tensors: match &files {
                ServedFiles::HuggingFace(checkpoint) => stored(checkpoint),
                ServedFiles::Gguf(gguf) => stored_in_gguf(gguf),
            },
            folder: Some(ServedFolder { files, record }),
        })
    }

    /// The checkpoint that a run corrects.
    #[must_use]
    pub(crate) fn of_run(weights: &Weights) -> Self {
        Self {
            path: weights.path().to_path_buf(),
            tensors: stored(weights.checkpoint()),
            folder: None,
        }
    }

    /// The model's modules, by the base's names.
    #[must_use]
    pub(crate) fn modules(&self) -> BTreeSet<&str> {
        modules_of(self.tensors.keys().map(String::as_str))
    }

    /// How the weight of a module is stored.
    #[must_use]
    pub(crate) fn weight(&self, module: &str) -> ServedWeight {
        let name = self.name_of_weight(module);
        match self.tensors.get(&name) {
            Some(StoredTensor {
                unread: None,
                shape,
            }) => ServedWeight::Stored(shape.clone()),
            Some(StoredTensor {
                unread: Some(dtype),
                ..
            }) => ServedWeight::Packed(format!("'{name}' of dtype {dtype}")),
            None => match self.packed_weight(module) {
                Some(packed) => {
                    ServedWeight::Stored(vec![packed.shape.out_features, packed.shape.in_features])
                }
                None => self.without_weight(module),
            },
        }
    }

    fn name_of_weight(&self, module: &str) -> String {
        match self.folder.as_ref().map(|of| &of.files) {
            Some(ServedFiles::Gguf(gguf)) => gguf.name_of_weight(module),
            _ => tensor_of(module),
        }
    }

    /// The packed weight of a module, where the model is one of qera's packed bases.
    fn packed_weight(&self, module: &str) -> Option<ServedCodes<'_>> {
        let packed = self.record()?.packed.as_ref()?;
        ServedCodes::of(self.checkpoint()?, packed, module)
    }

    /// The description of how the weights are quantized, from config.json.
    #[must_use]
    pub(crate) fn quantization(&self) -> Option<&Value> {
        self.checkpoint()?.config.quantization()
    }

    /// Modules whose weight is stored as a matrix of numbers.
    #[must_use]
    pub(crate) fn linear_modules(&self) -> BTreeSet<String> {
        let tensors = self.tensors.iter();
        let matrices = tensors.filter(|(_, tensor)| tensor.shape.len() == 2);
        let modules = matrices.filter_map(|(name, _)| module_of(name));
        modules.map(str::to_owned).collect()
    }

    /// BLAKE3 of a file beside the weights; `None` where there is no such file.
    #[must_use]
    pub(crate) fn digest_of_file(&self, path: &Path) -> Option<String> {
        let files = match &self.folder.as_ref()?.files {
            ServedFiles::HuggingFace(checkpoint) => &checkpoint.files,
            ServedFiles::Gguf(gguf) => gguf.files(),
        };
        let mut files = files.iter();
        let file = files.find(|file| file.path.file_name() == path.file_name())?;
        Some(format!("blake3:{}", blake3::hash(&file.bytes).to_hex()))
    }

    fn without_weight(&self, module: &str) -> ServedWeight {
        let inside = format!("{module}.");
        let next = self.tensors.range(inside.clone()..).next();
        if let Some((name, _)) = next.filter(|(name, _)| name.starts_with(&inside)) {
            return ServedWeight::Packed(format!("'{name}'"));
        }
        // The module may have a shorter name, or a longer one.
        let ends = module.match_indices('.').map(|(at, _)| &module[at + 1..]);
        let shorter = ends
            .map(tensor_of)
            .find(|name| self.tensors.contains_key(name));
        let end = format!(".{}", tensor_of(module));
        let longer = || self.tensors.keys().find(|name| name.ends_with(&end));
        ServedWeight::Missing(shorter.or_else(|| longer().cloned()))
    }

    /// The record, where the folder is one of qera's bases.
    #[must_use]
    pub(crate) fn record(&self) -> Option<&BaseRecord> {
        self.folder.as_ref()?.record.as_ref()
    }

    /// The model's folder; `None` for the run's checkpoint.
    #[must_use]
    pub(crate) fn folder(&self) -> Option<&Path> {
        match &self.folder.as_ref()?.files {
            ServedFiles::HuggingFace(checkpoint) => Some(checkpoint.folder()),
            ServedFiles::Gguf(_) => self.path.parent(),
        }
    }

    /// The checkpoint's fingerprint.
    #[must_use]
    pub(crate) fn identity(&self) -> Option<String> {
        self.checkpoint().map(Checkpoint::identity)
    }

    /// The Hugging Face checkpoint that is served.
    fn checkpoint(&self) -> Option<&Checkpoint> {
        self.folder.as_ref()?.files.checkpoint()
    }

    /// Whether the served model is a GGUF.
    #[must_use]
    pub(crate) fn is_gguf(&self) -> bool {
        let files = self.folder.as_ref().map(|of| &of.files);
        matches!(files, Some(ServedFiles::Gguf(_)))
    }

    /// Whether this is the model that is served, and not the run's checkpoint.
    #[must_use]
    pub(crate) const fn is_served(&self) -> bool {
        self.folder.is_some()
    }

    /// Some rows of a module's weight as [out_features, in_features], evenly spaced, each from its
    /// beginning. `None` for anything but a 2-D tensor of finite floats in a folder. `transposed`
    /// says that it is stored [in_features, out_features].
    #[must_use]
    pub(crate) fn sample(&self, module: &str, transposed: bool, most: SampleSize) -> Option<Rows> {
        if let ServedFiles::Gguf(gguf) = &self.folder.as_ref()?.files {
            return gguf.sample(&gguf.name_of_weight(module), most);
        }
        let checkpoint = self.checkpoint()?;
        let Some(tensor) = checkpoint.tensors.get(&tensor_of(module)) else {
            return Some(sample_of(&self.packed_weight(module)?, most));
        };
        let dtype = float_dtype(tensor.dtype)?;
        let [first, second] = tensor.shape[..] else {
            return None;
        };
        let (outputs, in_features) = if transposed {
            (second, first)
        } else {
            (first, second)
        };
        let (bytes, size) = (checkpoint.bytes(tensor), tensor.dtype.bitsize() / 8);
        let (count, width) = (most.rows.min(outputs), most.width.min(in_features));
        let mut stored = Vec::with_capacity(count * width * size);
        for row in most.rows_of(outputs) {
            for column in 0..width {
                let index = if transposed {
                    column * outputs + row
                } else {
                    row * in_features + column
                };
                stored.extend_from_slice(&bytes[index * size..][..size]);
            }
        }
        let mut values = vec![0.0; count * width];
        decode_weights(&stored, dtype, &mut values).ok()?;
        Some(Rows {
            in_features,
            width,
            values,
        })
    }
}

/// Some rows of a packed weight, decoded.
fn sample_of(weight: &ServedCodes<'_>, most: SampleSize) -> Rows {
    let PackShape {
        in_features,
        out_features,
    } = weight.shape;
    let width = most.width.min(in_features);
    let mut values = Vec::new();
    for row in most.rows_of(out_features) {
        let mut of_row = vec![0.0; width];
        weight.row(row, &mut of_row);
        values.extend(of_row);
    }
    Rows {
        in_features,
        width,
        values,
    }
}
