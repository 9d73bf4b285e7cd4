//! Which files of the watched folder are shards: `*.safetensors`, not hidden, not in a subfolder.

use std::path::{Path, PathBuf};

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
    for entry in std::fs::read_dir(folder).map_err(Fatal::io(folder, "read the watched folder"))? {
        let path = entry
            .map_err(Fatal::io(folder, "read the watched folder"))?
            .path();
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        // A pipe or socket would block the reader for ever.
        if hidden || !path.is_file() {
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
