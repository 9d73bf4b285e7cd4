//! An open GGUF: one file, or all parts of a split one. Files are mapped. It has the tensors by
//! their GGUF names, and the names and row orders of its model.

use core::ops::Range;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::disk::identity::Identity;
use crate::disk::mapping::Mapping;
use crate::disk::presence::is_file;
use crate::error::Fatal;
use crate::formats::gguf::block_type::{BlockType, UnknownType};
use crate::formats::gguf::header::{GgufHeader, TensorClaim};
use crate::formats::gguf::metadata::Metadata;
use crate::weights::checkpoint::{MappedFile, refuse};
use crate::weights::gguf::family::Family;
use crate::weights::gguf::rows::{HeadCounts, RowOrder};

/// Digits of the numbers in the names of parts: `-00001-of-00003.gguf`.
const DIGITS: usize = 5;
/// The key by which files that are no models say what they are.
const TYPE: &str = "general.type";
const ARCHITECTURE: &str = "general.architecture";
/// The ending of a factor that the weight beside it is multiplied by.
const SCALE: &str = ".scale";
const WEIGHT: &str = ".weight";
const SPLIT_NUMBER: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// A model in a GGUF.
#[derive(Debug)]
pub(crate) struct GgufModel {
    /// The path as given.
    pub(crate) path: PathBuf,
    /// Every tensor.
    pub(crate) tensors: BTreeMap<String, GgufTensor>,
    /// The names and row orders of the model.
    pub(crate) family: &'static Family,
    /// The numbers of attention heads, which decide the order of rows.
    pub(crate) heads: HeadCounts,
    /// The mapped files; a split model has more than one.
    pub(crate) parts: Vec<MappedFile>,
    /// The files' identities when they were opened.
    identities: Vec<Option<Identity>>,
}

/// A tensor's place in the files.
#[derive(Debug, Clone)]
pub(crate) struct GgufTensor {
    /// Lengths, the fastest first.
    pub(crate) ne: Vec<usize>,
    /// ggml's number of the tensor's type.
    pub(crate) type_number: u32,
    /// The index of the part that holds it.
    pub(crate) part: usize,
    /// The range of its bytes there; `None` where the type is unknown.
    pub(crate) range: Option<Range<usize>>,
}

/// What the metadata of a part say about the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Split {
    number: u64,
    count: u64,
    /// The number of tensors in all parts together.
    tensors: Option<u64>,
}

impl Split {
    fn of(metadata: &Metadata<'_>) -> Self {
        Self {
            number: metadata.unsigned(SPLIT_NUMBER).unwrap_or(0),
            count: metadata.unsigned(SPLIT_COUNT).unwrap_or(1).max(1),
            tensors: metadata.unsigned(SPLIT_TENSORS),
        }
    }
}

impl GgufModel {
    /// Opens a GGUF model, and the other parts of a split one. `model_types` are those of the
    /// checkpoint's configuration, for the model and its parts; the names must be those of one of
    /// them.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the file, and the tensor where it is one: no GGUF, no model, a
    /// part that is missing or belongs to another split, an architecture without known names, or
    /// one that this model_type is not converted to.
    pub(crate) fn open(path: &Path, model_types: &[&str]) -> Result<Self, Fatal> {
        let first = map(path)?;
        let header = parse(path, &first)?;
        let metadata = &header.metadata;
        let said = |key| metadata.text(key);
        if let Some(kind) = said(TYPE).filter(|kind| *kind != "model") {
            let reason = format!("is no model: its {TYPE} is '{}'", kind.escape_debug());
            return Err(refuse(path, reason));
        }
        let architecture = said(ARCHITECTURE).unwrap_or_default();
        let family =
            family(architecture, model_types).map_err(|reason| refuse(path, reason.to_string()))?;
        let heads = HeadCounts::of(architecture, |key| metadata.unsigned_or_array(key));
        let split = Split::of(metadata);
        let claims = header.tensors;
        let mut model = Self {
            path: path.to_path_buf(),
            tensors: BTreeMap::new(),
            family,
            heads,
            parts: Vec::new(),
            identities: Vec::new(),
        };
        model.add(path, first, claims)?;
        model.add_rest(split)?;
        Ok(model)
    }

    /// The bytes of a tensor; `None` where its type is unknown.
    #[must_use]
    pub(crate) fn bytes(&self, tensor: &GgufTensor) -> Option<&[u8]> {
        let range = tensor.range.clone()?;
        self.parts[tensor.part].bytes.get(range)
    }

    /// The order of the rows of a linear layer's tensor; `None` for another tensor, or where
    /// nothing says it.
    #[must_use]
    pub(crate) fn row_order(&self, tensor: &str) -> Option<RowOrder> {
        let module = self.family.module_of(tensor)?;
        let of = self.family.tensor_of(&module)?;
        let rows = *self.tensors.get(tensor)?.ne.get(1)?;
        RowOrder::new(of.rows, &self.heads, of.block, rows).ok()
    }

    /// The factor by which a weight is multiplied, where one is stored beside it.
    #[must_use]
    pub(crate) fn scale_beside(&self, weight: &str) -> Option<&GgufTensor> {
        self.tensors.get(&scale_name(weight))
    }

    /// The path of a part that was replaced or changed since it was opened.
    #[must_use]
    pub(crate) fn changed(&self) -> Option<&Path> {
        let mut parts = self.parts.iter().zip(&self.identities);
        let changed = parts.find(|(part, then)| Identity::at(&part.path).ok() != **then);
        changed.map(|(part, _)| part.path.as_path())
    }

    /// The file that holds a tensor.
    #[must_use]
    pub(crate) fn file_of(&self, tensor: &GgufTensor) -> &Path {
        &self.parts[tensor.part].path
    }

    /// BLAKE3 over what decides the order of rows (architecture and numbers of heads), and over
    /// name, type, lengths and all bytes of every tensor, in the order of names.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let (architecture, heads) = (self.family.architecture(), self.heads.described());
        hasher.update(format!("{architecture}\0{heads}\0").as_bytes());
        for (name, tensor) in &self.tensors {
            let (ne, number) = (&tensor.ne, tensor.type_number);
            hasher.update(format!("{name}\0{number}\0{ne:?}\0").as_bytes());
            hasher.update(self.bytes(tensor).unwrap_or_default());
        }
        format!("blake3:{}", hasher.finalize().to_hex())
    }

    /// Opens the other parts, which lie beside the first.
    fn add_rest(&mut self, split: Split) -> Result<(), Fatal> {
        let path = self.path.clone();
        if split.count > 1 {
            let named = SplitName::of(&path, split.count).ok_or_else(|| {
                let (count, one) = (split.count, 1);
                let end = format!("-{one:0DIGITS$}-of-{count:0DIGITS$}.gguf");
                refuse(
                    &path,
                    format!("is one of {count} parts, the first of which ends in {end}"),
                )
            })?;
            if split.number != 0 {
                let reason = format!(
                    "is part {} of {}: give the first, {}",
                    split.number.saturating_add(1),
                    split.count,
                    named.path(1).display()
                );
                return Err(refuse(&path, reason));
            }
            for number in 2..=split.count {
                self.add_part(&named.path(number), split, number - 1)?;
            }
        }
        match split.tensors {
            Some(said) if said != self.tensors.len() as u64 => {
                let found = self.tensors.len();
                let reason = format!("its {SPLIT_TENSORS} is {said}, its parts hold {found}");
                Err(refuse(&path, reason))
            }
            _ => Ok(()),
        }
    }

    fn add_part(&mut self, path: &Path, split: Split, number: u64) -> Result<(), Fatal> {
        let bytes = map(path)?;
        let GgufHeader {
            metadata, tensors, ..
        } = parse(path, &bytes)?;
        let found = Split::of(&metadata);
        if found != (Split { number, ..split }) {
            let said = |of: Split| {
                let tensors = of.tensors.map_or("some".into(), |all| all.to_string());
                format!(
                    "part {} of {}, {tensors} tensors in all",
                    of.number.saturating_add(1),
                    of.count
                )
            };
            let reason = format!(
                "says that it is {}, and not {}",
                said(found),
                said(Split { number, ..split })
            );
            return Err(refuse(path, reason));
        }
        self.add(path, bytes, tensors)
    }

    fn add(&mut self, path: &Path, bytes: Mapping, claims: Vec<TensorClaim>) -> Result<(), Fatal> {
        for mut claim in claims {
            // Others than ggml may write trailing lengths of 1; they do not change a matrix.
            while claim.ne.len() > 2 && claim.ne.last() == Some(&1) {
                claim.ne.pop();
            }
            // The header's check made sure that it lies within the file.
            let start = usize::try_from(claim.start).unwrap_or(usize::MAX);
            let range = claim
                .bytes
                .map(|length| start..start.saturating_add(length));
            let tensor = GgufTensor {
                ne: claim.ne,
                type_number: claim.type_number,
                part: self.parts.len(),
                range,
            };
            if self.tensors.insert(claim.name.clone(), tensor).is_some() {
                let name = claim.name.escape_debug();
                let reason = format!("tensor '{name}' stands in another part, too");
                return Err(refuse(path, reason));
            }
        }
        self.identities.push(Identity::at(path).ok());
        self.parts.push(MappedFile {
            path: path.to_path_buf(),
            bytes,
        });
        Ok(())
    }
}

impl GgufTensor {
    /// The tensor's type.
    ///
    /// # Errors
    /// [`UnknownType`] for a type that is not read.
    pub(crate) fn block_type(&self) -> Result<BlockType, UnknownType> {
        BlockType::of(self.type_number)
    }
}

/// The family of an architecture for a model with one of these types.
fn family(architecture: &str, model_types: &[&str]) -> Result<&'static Family, NoFamily> {
    let listed = Family::of_architecture(architecture);
    let listed = listed.ok_or_else(|| NoFamily::Architecture(architecture.to_owned()))?;
    if model_types.is_empty() {
        // The name decides first, and then the number.
        return Ok(listed);
    }
    let of_types = model_types
        .iter()
        .copied()
        .filter_map(Family::of_model_type);
    let mut of_model = of_types.filter(|of| of.architecture() == architecture);
    of_model.next().ok_or_else(|| NoFamily::ModelType {
        architecture: architecture.to_owned(),
        model_types: model_types.join("', '"),
    })
}

/// Why names and row orders are not known.
#[derive(Debug, thiserror::Error)]
enum NoFamily {
    /// The architecture is not known.
    #[error(
        "its general.architecture is '{}', whose names and row orders qera does not know; known \
         are {}",
        .0.escape_debug(),
        Family::architectures().join(", ")
    )]
    Architecture(String),
    /// The architecture is not known for a model of this type.
    #[error(
        "its general.architecture is '{architecture}', and qera knows no names for it of the \
         checkpoint's model_type '{}'",
        model_types.escape_debug()
    )]
    ModelType {
        architecture: String,
        model_types: String,
    },
}

/// The name of a weight's factor.
#[must_use]
pub(crate) fn scale_name(weight: &str) -> String {
    format!("{}{SCALE}", weight.strip_suffix(WEIGHT).unwrap_or(weight))
}

fn map(path: &Path) -> Result<Mapping, Fatal> {
    if !is_file(path)? {
        let reason = "is no file: a GGUF is a file, of a split one the first part".into();
        return Err(refuse(path, reason));
    }
    Mapping::open(path).map_err(|e| refuse(path, e.to_string()))
}

fn parse<'b>(path: &Path, bytes: &'b [u8]) -> Result<GgufHeader<'b>, Fatal> {
    GgufHeader::parse(bytes).map_err(|e| refuse(path, e.to_string()))
}

/// The names of a split file's parts.
struct SplitName {
    folder: PathBuf,
    stem: String,
    count: u64,
}

impl SplitName {
    /// Derives the names from that of one part; `None` where it is no such name.
    fn of(path: &Path, count: u64) -> Option<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let end = format!("-of-{count:0DIGITS$}.gguf");
        let begin = name.strip_suffix(&end)?;
        let (stem, digits) = begin.split_at_checked(begin.len().checked_sub(DIGITS)?)?;
        let numbered = digits.bytes().all(|digit| digit.is_ascii_digit());
        let stem = stem.strip_suffix('-').filter(|_| numbered)?;
        Some(Self {
            folder: path.parent().unwrap_or(Path::new("")).to_path_buf(),
            stem: stem.to_owned(),
            count,
        })
    }

    fn path(&self, number: u64) -> PathBuf {
        let Self { stem, count, .. } = self;
        let name = format!("{stem}-{number:0DIGITS$}-of-{count:0DIGITS$}.gguf");
        self.folder.join(name)
    }
}
