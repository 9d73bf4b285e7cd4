//! Which files of the watched folder are shards: `*.safetensors`, not hidden, not in a subfolder.

use std::path::{Path, PathBuf};

use crate::disk;
use crate::disk::presence::is_surely_file;
use crate::disk::tried::is_failure;
use crate::error::Fatal;

/// The shards of a folder.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The shards, sorted by file name, which is the order in which they are folded.
    pub(crate) shards: Vec<PathBuf>,
    /// Paths of which the disk does not say what they are.
    pub(crate) unanswered: Vec<UnansweredPath>,
    /// The number of other visible files, which are left alone.
    pub(crate) ignored: usize,
}

/// A path of which the disk says nothing.
#[derive(Debug)]
pub(crate) struct UnansweredPath {
    /// The path.
    pub(crate) path: PathBuf,
    /// The disk's error.
    pub(crate) error: std::io::Error,
}

/// Lists the shards of `folder`, sorted by the bytes of their names.
///
/// # Errors
/// [`Fatal::Io`] when the folder cannot be read.
pub(crate) fn list(folder: &Path) -> Result<Listing, Fatal> {
    let mut listing = Listing {
        shards: Vec::new(),
        unanswered: Vec::new(),
        ignored: 0,
    };
    let paths = disk::list(folder).map_err(Fatal::io(folder, "read the watched folder"))?;
    for path in paths {
        let hidden = path
            .file_name()
            .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        let is_shard = path.extension().is_some_and(|e| e == "safetensors");
        match is_surely_file(&path) {
            Ok(true) if is_shard => listing.shards.push(path),
            Ok(true) => listing.ignored += 1,
            Err(error) if is_shard && is_failure(&error) => {
                listing.unanswered.push(UnansweredPath { path, error });
            }
            // It is a folder, or a pipe or socket that would block the reader for ever, or it was
            // removed since.
            Ok(false) | Err(_) => {}
        }
    }
    listing.shards.sort();
    Ok(listing)
}
