//! Which files of the watched folder are shards: `*.safetensors`, not hidden, not in a subfolder.

use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::Fatal;

/// The shards of a folder.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Sorted by file name: the order in which they are folded.
    pub(crate) shards: Vec<PathBuf>,
    /// Other visible files, which are left alone.
    pub(crate) ignored: usize,
}

/// Lists the shards of `folder`, sorted by the bytes of their names.
///
/// # Errors
/// [`Fatal::Io`] when the folder cannot be read.
pub(crate) fn list(folder: &Path) -> Result<Listing, Fatal> {
    let mut listing = Listing {
        shards: Vec::new(),
        ignored: 0,
    };
    let paths = disk::list(folder).map_err(Fatal::io(folder, "read the watched folder"))?;
    for path in paths {
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        // A pipe or socket would block the reader for ever.
        if hidden || !disk::is_file(&path) {
            continue;
        }
        if path.extension().is_some_and(|e| e == "safetensors") {
            listing.shards.push(path);
        } else {
            listing.ignored += 1;
        }
    }
    listing.shards.sort();
    Ok(listing)
}
