//! Whether a path that an option names is a GGUF, which decides what else may be asked for.

use std::path::Path;

use crate::disk::open_file::OpenFile;
use crate::disk::presence::is_file;
use crate::error::Fatal;
use crate::formats::gguf::header::{GgufHeader, MAGIC};

/// Whether a file is a GGUF by its first bytes.
///
/// # Errors
/// [`Fatal::Io`] where the disk does not give them.
pub(crate) fn is_gguf(path: &Path) -> Result<bool, Fatal> {
    if !is_file(path)? {
        return Ok(false);
    }
    let file = OpenFile::open(path);
    let first = file.and_then(|file| file.first_bytes(MAGIC.len()));
    let first = first.map_err(Fatal::io(path, "read"))?;
    Ok(GgufHeader::is_gguf(&first))
}
