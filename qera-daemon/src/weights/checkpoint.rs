//! A Hugging Face checkpoint, read-only and one tensor at a time: which files, which tensors, which
//! of them are linear layers (`layers`), and which of those share an input (`sites`).

use core::ops::Range;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use crate::disk::mapping::Mapping;
use crate::disk::open_file::OpenFile;
use crate::disk::presence::{is_file, is_folder, is_link};
use crate::disk::{list, read_small, resolve};
use crate::error::Fatal;
use crate::formats::checkpoint_index::CheckpointIndex;
use crate::formats::foreign_checkpoint::ForeignCheckpoint;
use crate::formats::model_config::ModelConfig;
use crate::formats::safetensors::header::{Claim, Header, HeaderError};
use crate::weights::gguf::rows::RowOrder;

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// The open checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    /// The path as given.
    pub(crate) path: PathBuf,
    /// Whether the path is a folder.
    pub(crate) is_folder: bool,
    /// Whether that is a GGUF.
    pub(crate) is_gguf: bool,
    /// Every tensor, by name. Where there is an index it decides: a tensor that it does not list
    /// does not exist.
    pub(crate) tensors: BTreeMap<String, Tensor>,
    /// The content of `config.json`.
    pub(crate) config: ModelConfig,
    /// A file that is there and is not read, although its name suggests that it would be.
    pub(crate) stray: Option<String>,
    /// The files that the tensors lie in.
    pub(crate) files: Vec<MappedFile>,
}

/// A file of weights.
#[derive(Debug)]
pub(crate) struct MappedFile {
    /// The file's path.
    pub(crate) path: PathBuf,
    /// The file's bytes.
    pub(crate) bytes: Mapping,
}

/// A tensor's place in the files.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Shape, row-major.
    pub(crate) shape: Vec<usize>,
    /// The order in which its rows are stored.
    pub(crate) rows: RowOrder,
    /// The index of the file that holds it.
    pub(crate) file: usize,
    /// The range of its bytes in that file.
    pub(crate) range: Range<usize>,
}

impl Checkpoint {
    /// Opens a safetensors file, or a folder with `model.safetensors.index.json` or
    /// `model.safetensors`; `config.json` beside it is read when there is one.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the file, and the tensor where it is one: nothing to open, a
    /// file that is no complete safetensors file, a file or tensor that the index names and that is
    /// missing.
    pub(crate) fn open(path: &Path) -> Result<Self, Fatal> {
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            is_folder: is_folder(path)?,
            is_gguf: false,
            tensors: BTreeMap::new(),
            files: Vec::new(),
            config: ModelConfig::default(),
            stray: None,
        };
        checkpoint.config = read_config(checkpoint.folder())?;
        let named = |name: &str| path.file_name().is_some_and(|n| n == name);
        if named(INDEX) {
            checkpoint.add_indexed(path)?;
        } else if !checkpoint.is_folder {
            checkpoint.add_file(path, None)?;
        } else if is_file(&path.join(INDEX))? {
            // The index comes before a single file, which transformers would take. Whoever writes
            // an index says with it what belongs to the model; a file that is left beside it is
            // older.
            checkpoint.add_indexed(&path.join(INDEX))?;
        } else if is_file(&path.join(SINGLE))? {
            checkpoint.add_file(&path.join(SINGLE), None)?;
        } else {
            return Err(nothing_to_open(path));
        }
        Ok(checkpoint)
    }

    /// The bytes of a tensor, straight from the mapping.
    #[must_use]
    pub(crate) fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.files[tensor.file].bytes[tensor.range.clone()]
    }

    /// The file that a tensor lies in, for messages.
    #[must_use]
    pub(crate) fn file_of(&self, tensor: &Tensor) -> &Path {
        &self.files[tensor.file].path
    }

    /// The folder that the checkpoint lies in.
    #[must_use]
    pub(crate) fn folder(&self) -> &Path {
        if self.is_folder {
            return &self.path;
        }
        self.path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    }

    /// The names under which a shard's `qera.model` may call this model.
    #[must_use]
    pub(crate) fn model_names(&self) -> Vec<String> {
        let full = resolve(&self.path).unwrap_or_else(|_| self.path.clone());
        let own = match self.is_folder {
            true => full.file_name(),
            false => full.file_stem(),
        };
        let own = own.map(|name| name.to_string_lossy().into_owned());
        let configured = self.config.name().map(str::to_owned);
        configured.into_iter().chain(own).collect()
    }

    fn add_indexed(&mut self, index_path: &Path) -> Result<(), Fatal> {
        let folder = self.folder().to_path_buf();
        let bytes = read_small(index_path).map_err(Fatal::io(index_path, "read"))?;
        let index = CheckpointIndex::parse(&bytes);
        let index = index.map_err(|e| refuse(index_path, e.to_string()))?;
        if !index.files.contains_key(SINGLE) && is_file(&folder.join(SINGLE))? {
            self.stray = Some(format!("{SINGLE} beside {INDEX} is not read"));
        }
        for (file, tensors) in index.files {
            let path = folder.join(&file);
            if !is_file(&path)? {
                return Err(refuse(
                    index_path,
                    format!(
                        "names the file {file} ({} tensors, '{}' first), which is missing",
                        tensors.len(),
                        tensors[0]
                    ),
                ));
            }
            self.add_file(&path, Some(&tensors.iter().cloned().collect()))?;
            if let Some(lacking) = tensors.iter().find(|t| !self.tensors.contains_key(*t)) {
                return Err(refuse(
                    &path,
                    format!("lacks tensor '{lacking}', which {INDEX} says it holds"),
                ));
            }
        }
        Ok(())
    }

    /// Adds a file's tensors: those that the index lists for it, or all where there is no index.
    fn add_file(&mut self, path: &Path, listed: Option<&BTreeSet<String>>) -> Result<(), Fatal> {
        let unread = |e: std::io::Error| refuse(path, e.to_string());
        let bytes = Mapping::open(path).map_err(unread)?;
        let header = Header::parse(&bytes, bytes.len() as u64);
        let header = header.map_err(|e| refuse(path, unread_format(path, &bytes, &e)))?;
        for Claim {
            key,
            dtype,
            shape,
            start,
            bytes: length,
        } in header.claims
        {
            if listed.is_some_and(|listed| !listed.contains(&key)) {
                continue;
            }
            // The offset is no larger than the mapping's length, which is a usize.
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let tensor = Tensor {
                dtype,
                shape,
                rows: RowOrder::AsTheyLie,
                file: self.files.len(),
                range: start..start + length,
            };
            // No key occurs twice in a file, and the index names one file for each.
            self.tensors.insert(key, tensor);
        }
        self.files.push(MappedFile {
            path: path.to_path_buf(),
            bytes,
        });
        Ok(())
    }
}

/// Why a file is not read: its format, if that is known, or else what is wrong with it.
fn unread_format(path: &Path, bytes: &[u8], error: &HeaderError) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let foreign = ForeignCheckpoint::of(&name, bytes);
    foreign.map_or_else(|| error.to_string(), |foreign| foreign.to_string())
}

/// The error for a folder without safetensors; it names a checkpoint of another format in it, if
/// there is one.
fn nothing_to_open(folder: &Path) -> Fatal {
    let foreign = |path: &PathBuf| {
        let file = OpenFile::open(path).ok()?;
        let first = file.first_bytes(ForeignCheckpoint::FIRST_BYTES).ok()?;
        let name = path.file_name()?.to_string_lossy();
        let format = ForeignCheckpoint::of(&name, &first)?;
        Some(refuse(path, format.to_string()))
    };
    let files = list(folder).unwrap_or_default();
    // What cannot be read is only not named.
    let files = files.iter().filter(|path| is_file(path).unwrap_or(false));
    let mut foreign = files.filter_map(foreign);
    foreign.next().unwrap_or_else(|| {
        let is_link = |name: &&str| is_link(&folder.join(name)).unwrap_or(false);
        match [INDEX, SINGLE].iter().find(|name| is_link(name)) {
            Some(name) => refuse(&folder.join(name), "is a link that leads to no file".into()),
            None => refuse(folder, format!("holds neither {SINGLE} nor {INDEX}")),
        }
    })
}

fn read_config(folder: &Path) -> Result<ModelConfig, Fatal> {
    let path = folder.join("config.json");
    let bytes = match read_small(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(ModelConfig::default()),
        Err(e) => return Err(Fatal::io(&path, "read")(e)),
    };
    ModelConfig::parse(&bytes).map_err(|e| refuse(&path, format!("not JSON: {e}")))
}

/// The error for a checkpoint that cannot serve.
pub(crate) fn refuse(path: &Path, reason: String) -> Fatal {
    Fatal::Checkpoint {
        path: path.to_path_buf(),
        reason,
    }
}
