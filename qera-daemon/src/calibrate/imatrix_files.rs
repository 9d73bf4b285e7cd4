//! The files of `--imatrix`. They are read once and added up; their names and widths are
//! remembered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::disk::mapping::Mapping;
use crate::disk::presence::{exists, is_file};
use crate::error::Fatal;
use crate::formats::imatrix::{CountUnit, Imatrix, ImatrixEntry};
use crate::settings::imatrix::ImatrixSettings;
use crate::weights::Weights;
use crate::weights::layers::{Layer, tensor_of};

/// The unit of counts of a .dat that were added to those of the other layout.
const ESTIMATED: &str = "chunks, estimated in tokens";

/// The imatrix files, as they were given.
#[derive(Debug)]
pub(crate) struct ImatrixFiles {
    pub(super) files: Vec<ImatrixFile>,
    /// The sum of all files.
    pub(super) sum: Imatrix,
}

#[derive(Debug)]
pub(super) struct ImatrixFile {
    pub(super) path: PathBuf,
    pub(super) record: ImatrixRecord,
    /// The shape of each weight's entry, for messages that name the file.
    shapes: BTreeMap<String, EntryShape>,
}

/// A file as manifests and events describe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ImatrixRecord {
    /// The path as it was given.
    pub(crate) file: String,
    /// BLAKE3 of its bytes.
    pub(crate) digest: String,
    /// The number of its entries.
    pub(crate) entries: usize,
    /// The datasets that it was made from, as it says itself.
    pub(crate) datasets: Vec<String>,
    /// The number of chunks of text; 0 where the file does not say.
    pub(crate) chunks: u64,
    /// Tokens of a chunk; 0 where it does not say.
    pub(crate) chunk_size: u64,
    /// The unit of its counts: `tokens`, or `chunks` in the legacy form. Where both were added,
    /// what chunks were taken for.
    pub(crate) counts: &'static str,
}

/// The shape of a file's entry for a weight.
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
    /// Whether its counts had to be estimated so that they add up with those of another file.
    #[must_use]
    pub(crate) fn is_estimated(&self) -> bool {
        self.counts == ESTIMATED
    }
}

impl ImatrixFiles {
    /// Reads the files and adds them up; `None` where none was given.
    ///
    /// # Errors
    /// [`Fatal::Imatrix`] naming a file that is no imatrix, comes twice, or cannot be added to
    /// those before it.
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
            let reason = format!("is the same file as {same}: its rows would count twice");
            return Err(refuse(&file.path, reason));
        }
        let added = self.sum.add(imatrix);
        added.map_err(|error| refuse(&file.path, error.to_string()))?;
        self.files.push(file);
        Ok(())
    }

    /// Marks counts of a .dat that were added to others as estimates.
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

    /// Checks that each file can belong to the model, whichever layers are selected.
    ///
    /// # Errors
    /// [`Fatal::Imatrix`] for a file that has no name of the model.
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

    /// The name of a layer's weight in an imatrix: that of GGUF, or the layer's own where the model
    /// is not listed.
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
    /// Opens a file. If it is no imatrix, only its header is read, however large it is.
    fn open(path: &Path) -> Result<Self, Fatal> {
        if exists(path)? && !is_file(path)? {
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
    /// Whether the file has an entry for any of these layers. Each entry must be as wide as its
    /// layer.
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

/// The unit's name in a manifest.
const fn counts_of(unit: CountUnit) -> &'static str {
    match unit {
        CountUnit::Rows => "tokens",
        CountUnit::RowsInPart => "tokens, in part by chunks",
        CountUnit::Chunks => "chunks",
    }
}

/// The error for an imatrix that cannot be used.
pub(super) fn refuse(path: &Path, reason: String) -> Fatal {
    Fatal::Imatrix {
        path: path.to_path_buf(),
        reason,
    }
}
