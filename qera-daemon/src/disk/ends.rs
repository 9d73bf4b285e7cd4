//! What is read to its end has one: no pipe, socket or device, which could keep a reader for ever
//! or fill its memory.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use crate::disk::system::{FileKind, stat};

/// Nothing, where a path names a file or a folder.
///
/// # Errors
/// That it names something else; what the system says.
pub(crate) fn must_end(path: &Path) -> Result<()> {
    if let FileKind::File | FileKind::Folder = stat(path)?.kind {
        return Ok(());
    }
    let said = "is no file but a pipe, a socket or a device";
    Err(Error::new(ErrorKind::InvalidInput, said))
}
