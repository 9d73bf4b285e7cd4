//! Whether a path that an option names is a GGUF, which decides what else may be asked for.

use std::path::Path;

use crate::disk::is_file;
use crate::disk::open_file::OpenFile;
use crate::formats::gguf::header::{GgufHeader, MAGIC};

/// Whether a file is a GGUF by its first bytes.
#[must_use]
pub(crate) fn is_gguf(path: &Path) -> bool {
    let first = || OpenFile::open(path).ok()?.first_bytes(MAGIC.len()).ok();
    is_file(path) && first().is_some_and(|bytes| GgufHeader::is_gguf(&bytes))
}
