//! The files of `--imatrix`: read once, added up, and remembered by their names and widths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::disk;
use crate::disk::mapping::Mapping;
use crate::error::Fatal;
use crate::formats::imatrix::{CountUnit, Imatrix, ImatrixEntry};
use crate::settings::imatrix::ImatrixSettings;
use crate::weights::Weights;
use crate::weights::layers::{Layer, tensor_of};

/// Counts of a .dat that were added to those of another layout.
const ESTIMATED: &str = "chunks, estimated in tokens";

/// The files, as they were given.
#[derive(Debug)]
pub(crate) struct ImatrixFiles {
    pub(super) files: Vec<ImatrixFile>,
    /// All of them.
    pub(super) sum: Imatrix,
}

#[derive(Debug)]
pub(super) struct ImatrixFile {
    pub(super) path: PathBuf,
    pub(super) record: ImatrixRecord,
    /// By name of the weight, for messages that name the file.
    shapes: BTreeMap<String, EntryShape>,
}

/// A file, as manifests and events have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ImatrixRecord {
    /// The path as it was given.
    pub(crate) file: String,
    /// BLAKE3 of its bytes.
    pub(crate) digest: String,
    /// Its entries.
    pub(crate) entries: usize,
    /// What it says it was made of.
    pub(crate) datasets: Vec<String>,
    /// Chunks of text, and tokens of each; 0 where it does not say.
    pub(crate) chunks: u64,
    /// Tokens of a chunk; 0 where it does not say.
    pub(crate) chunk_size: u64,
    /// What its counts are of: `tokens`, or `chunks` in the legacy form; where both were added,
    /// what chunks were taken for.
    pub(crate) counts: &'static str,
}

/// What a file has of one weight.
#[derive(Debug)]
struct EntryShape {
    matrices: usize,
    channels: usize,
}

impl EntryShape {
    fn of(entry: &ImatrixEntry) -> Self {
        Self {
            matrices: entry.matrices(),
            channels: entry.width(),
        }
    }
}

impl ImatrixRecord {
    /// Whether its counts were estimated to be added to those of another file.
    #[must_use]
    pub(crate) fn is_estimated(&self) -> bool {
        self.counts == ESTIMATED
    }
}

impl ImatrixFiles {
    /// Reads the files and adds them up; `None` where none was given.
    ///
    /// # Errors
    /// [`Fatal::Imatrix`] naming the file that is none, comes twice, or does not add to those
    /// before it.
    pub(crate) fn open(settings: &ImatrixSettings) -> Result<Option<Self>, Fatal> {
        let mut opened: Option<Self> = None;
        for path in &settings.files {
            let OpenedFile { file, imatrix } = OpenedFile::open(path)?;
            match &mut opened {
                Some(before) => before.add(file, imatrix)?,
                None => {
                    opened = Some(Self {
                        files: vec![file],
                        sum: imatrix,
                    });
                }
            }
        }
        if let Some(files) = &mut opened {
            files.mark_estimates();
        }
        Ok(opened)
    }

    fn add(&mut self, file: ImatrixFile, imatrix: Imatrix) -> Result<(), Fatal> {
        let mut before = self.files.iter();
        if let Some(same) = before.find(|of| of.record.digest == file.record.digest) {
            let same = same.path.display();
            let reason = format!("is the same as {same}: what it counts would count twice");
            return Err(refuse(&file.path, reason));
        }
        let added = self.sum.add(imatrix);
        added.map_err(|error| refuse(&file.path, error.to_string()))?;
        self.files.push(file);
        Ok(())
    }

    /// What is a .dat's among others is said to be an estimate.
    fn mark_estimates(&mut self) {
        if self.sum.unit != CountUnit::RowsInPart {
            return;
        }
        let chunks = counts_of(CountUnit::Chunks);
        for file in &mut self.files {
            if file.record.counts == chunks {
                file.record.counts = ESTIMATED;
            }
        }
    }

    /// Whether each can be of the model, whatever of it is selected.
    ///
    /// # Errors
    /// [`Fatal::Imatrix`] for one that has no name of the model's.
    pub(crate) fn check_names(&self, weights: &Weights) -> Result<(), Fatal> {
        let modules = || weights.modules();
        for file in &self.files {
            let has = |module: &str| {
                let listed = weights.family().and_then(|of| of.tensor_of(module));
                let listed = listed.is_some_and(|of| file.shapes.contains_key(&of.tensor));
                listed || file.shapes.contains_key(&tensor_of(module))
            };
            if modules().any(has) {
                continue;
            }
            let selected = weights.layers().first().map(|layer| layer.name.as_str());
            let asked = selected.or_else(|| modules().next()).unwrap_or_default();
            let first = file.shapes.keys().next().map_or("", String::as_str);
            return Err(refuse(
                &file.path,
                format!(
                    "none of its {} entries is of a layer of the checkpoint ('{first}' first, where '{}' would be one): an imatrix of another model",
                    file.shapes.len(),
                    self.tensor_of(weights, asked),
                ),
            ));
        }
        Ok(())
    }

    /// The name of a layer's weight here: that of GGUF, or, of a model that is not listed, its own.
    pub(super) fn tensor_of(&self, weights: &Weights, module: &str) -> String {
        let listed = weights.family().and_then(|of| of.tensor_of(module));
        let listed = listed.map(|of| of.tensor);
        let has = |name: &String| self.sum.entries.contains_key(name);
        let own = tensor_of(module);
        match listed {
            Some(listed) if has(&listed) || !has(&own) => listed,
            _ => own,
        }
    }
}

/// A file that was just read.
struct OpenedFile {
    file: ImatrixFile,
    imatrix: Imatrix,
}

impl OpenedFile {
    /// Nothing but its header is read of a file that is none, however large.
    fn open(path: &Path) -> Result<Self, Fatal> {
        if disk::exists(path) && !disk::is_file(path) {
            let reason = "is no file: an imatrix is a file, and no folder, pipe or device";
            return Err(refuse(path, reason.into()));
        }
        let bytes = Mapping::open(path).map_err(Fatal::io(path, "read the imatrix"))?;
        let imatrix = Imatrix::parse(&bytes).map_err(|error| refuse(path, error.to_string()))?;
        let record = ImatrixRecord {
            file: path.display().to_string(),
            digest: format!("blake3:{}", blake3::hash(&bytes).to_hex()),
            entries: imatrix.entries.len(),
            datasets: imatrix.datasets.clone(),
            chunks: imatrix.chunks,
            chunk_size: imatrix.chunk_size,
            counts: counts_of(imatrix.unit),
        };
        let entries = imatrix.entries.iter();
        let shapes = entries.map(|(name, entry)| (name.clone(), EntryShape::of(entry)));
        let file = ImatrixFile {
            path: path.to_path_buf(),
            record,
            shapes: shapes.collect(),
        };
        Ok(Self { file, imatrix })
    }
}

impl ImatrixFile {
    /// Whether it has an entry of any of these layers, each of which is as wide as its own.
    pub(super) fn fits(&self, layers: &[Layer], tensors: &[String]) -> Result<bool, Fatal> {
        let mut fits = false;
        for (layer, tensor) in layers.iter().zip(tensors) {
            let Some(EntryShape { matrices, channels }) = self.shapes.get(tensor) else {
                continue;
            };
            fits = true;
            if *matrices != 1 {
                return Err(refuse(
                    &self.path,
                    format!(
                        "tensor '{tensor}' is {matrices} matrices of {channels} channels, the checkpoint's '{}' is one weight: an imatrix of another model",
                        layer.name
                    ),
                ));
            }
            if *channels != layer.in_features {
                return Err(refuse(
                    &self.path,
                    format!(
                        "tensor '{tensor}' has {channels} channels, the checkpoint's '{}' has in_features {}: an imatrix of another model",
                        layer.name, layer.in_features
                    ),
                ));
            }
        }
        Ok(fits)
    }
}

/// As a manifest says it.
const fn counts_of(unit: CountUnit) -> &'static str {
    match unit {
        CountUnit::Rows => "tokens",
        CountUnit::RowsInPart => "tokens, in part by chunks",
        CountUnit::Chunks => "chunks",
    }
}

/// An imatrix that cannot serve.
pub(super) fn refuse(path: &Path, reason: String) -> Fatal {
    Fatal::Imatrix {
        path: path.to_path_buf(),
        reason,
    }
}
