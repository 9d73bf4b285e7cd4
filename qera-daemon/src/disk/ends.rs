//! Refuses pipes, sockets and devices where a file is read to its end: they could keep a reader for
//! ever, or fill its memory.

use std::io::{Error, ErrorKind, Result};
use std::path::Path;

use crate::disk::system::{FileKind, stat};

/// Checks that a path names a file or a folder.
///
/// # Errors
/// The error that it names something else, or the system's error.
pub(crate) fn must_end(path: &Path) -> Result<()> {
    if let FileKind::File | FileKind::Folder = stat(path)?.kind {
        return Ok(());
    }
    let said = "is no file but a pipe, a socket or a device";
    Err(Error::new(ErrorKind::InvalidInput, said))
}
