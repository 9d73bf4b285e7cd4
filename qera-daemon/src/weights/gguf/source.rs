//! The GGUF that a checkpoint was read from, as it lies there: its metadata and every tensor of all
//! its parts, in their order, with the names that they have from here on.

use std::collections::BTreeMap;
use std::path::Path;

use crate::formats::gguf::header::{GgufHeader, TensorClaim};
use crate::formats::gguf::metadata::StoredEntry;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::gguf::rows::RowOrder;

/// What keys of a split begin with, which one file has not.
const SPLIT: &str = "split.";

/// A GGUF.
#[derive(Debug)]
pub(crate) struct GgufSource<'a> {
    /// Keys and values of the first part but those of the split.
    pub(crate) metadata: Vec<StoredEntry<'a>>,
    /// Its tensors.
    pub(crate) tensors: Vec<SourceTensor<'a>>,
}

/// A tensor.
#[derive(Debug)]
pub(crate) struct SourceTensor<'a> {
    /// Name in the file.
    pub(crate) name: String,
    /// Dimensions, the one along memory first.
    pub(crate) ne: Vec<usize>,
    /// Number of its type in ggml.
    pub(crate) type_number: u32,
    /// Its bytes; none where the type's size is not known.
    pub(crate) bytes: Option<&'a [u8]>,
    /// The file that holds it.
    pub(crate) file: &'a Path,
    /// What the checkpoint calls it; none where it is read as none of its tensors.
    pub(crate) known: Option<KnownTensor<'a>>,
}

/// A tensor of the checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownTensor<'a> {
    /// Its name there.
    pub(crate) name: &'a str,
    /// Where its rows lie.
    pub(crate) rows: RowOrder,
}

impl<'a> GgufSource<'a> {
    /// Of a checkpoint; none where that is no GGUF.
    #[must_use]
    pub(crate) fn of(checkpoint: &'a Checkpoint) -> Option<Self> {
        let tensors = checkpoint.tensors.iter();
        let known: BTreeMap<TensorPlace, KnownTensor<'a>> = tensors
            .map(|(name, tensor)| {
                let start = tensor.range.start;
                let rows = tensor.rows;
                let file = tensor.file;
                (TensorPlace { file, start }, KnownTensor { name, rows })
            })
            .collect();
        let mut source = Self {
            metadata: Vec::new(),
            tensors: Vec::new(),
        };
        for (file, mapped) in checkpoint.files.iter().enumerate() {
            // All of it was read before.
            let header = GgufHeader::parse(&mapped.bytes).ok()?;
            if file == 0 {
                source.metadata = header.metadata.as_they_lie();
            }
            for claim in header.tensors {
                let start = usize::try_from(claim.start).ok()?;
                let bytes = bytes_of(&claim, start, &mapped.bytes);
                source.tensors.push(SourceTensor {
                    name: claim.name,
                    ne: claim.ne,
                    type_number: claim.type_number,
                    bytes,
                    file: &mapped.path,
                    known: known.get(&TensorPlace { file, start }).copied(),
                });
            }
        }
        source
            .metadata
            .retain(|entry| !entry.key.starts_with(SPLIT));
        (!source.tensors.is_empty()).then_some(source)
    }
}

fn bytes_of<'a>(claim: &TensorClaim, start: usize, file: &'a [u8]) -> Option<&'a [u8]> {
    file.get(start..start.checked_add(claim.bytes?)?)
}

/// Where a tensor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct TensorPlace {
    file: usize,
    start: usize,
}
