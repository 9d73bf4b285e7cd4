//! The GGUF that a checkpoint was read from, unchanged: its metadata and the tensors of all its
//! parts in their order, together with their names in this program.

use std::collections::BTreeMap;
use std::path::Path;

use crate::formats::gguf::header::{GgufHeader, TensorClaim};
use crate::formats::gguf::metadata::StoredEntry;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::gguf::rows::RowOrder;

/// The prefix of keys about a split, which a single file does not have.
const SPLIT: &str = "split.";

/// A GGUF.
#[derive(Debug)]
pub(crate) struct GgufSource<'a> {
    /// The metadata of the first part, without the keys of the split.
    pub(crate) metadata: Vec<StoredEntry<'a>>,
    /// The tensors of the file.
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
    /// The bytes of the tensor; `None` where the size of its type is unknown.
    pub(crate) bytes: Option<&'a [u8]>,
    /// The file that holds it.
    pub(crate) file: &'a Path,
    /// The checkpoint's tensor that it is read as; `None` where it is read as none.
    pub(crate) known: Option<KnownTensor<'a>>,
}

/// A tensor of the checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownTensor<'a> {
    /// The tensor's name in the checkpoint.
    pub(crate) name: &'a str,
    /// The order of its rows.
    pub(crate) rows: RowOrder,
}

impl<'a> GgufSource<'a> {
    /// The GGUF of a checkpoint; `None` where the checkpoint is no GGUF.
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
            // The whole header was read before, so that this cannot fail.
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
