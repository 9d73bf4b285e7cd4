//! Which files of the watched folder are shards: `*.safetensors`, not hidden, not in a subfolder.

use std::path::{Path, PathBuf};

use crate::disk;
use crate::disk::presence::{is_folder, is_link, is_surely_file};
use crate::disk::tried::is_failure;
use crate::error::Fatal;

/// The shards of a folder.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The shards, sorted by file name, which is the order in which they are folded.
    pub(crate) shards: Vec<PathBuf>,
    /// Paths of which the disk does not say what they are.
    pub(crate) unanswered: Vec<UnansweredPath>,
    /// What has a shard's name and is no file.
    pub(crate) no_files: Vec<NoFile>,
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

/// What has a shard's name and is no file.
#[derive(Debug)]
pub(crate) struct NoFile {
    /// The path.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) is: &'static str,
}

/// Lists the shards of `folder`, sorted by the bytes of their names.
///
/// # Errors
/// [`Fatal::Io`] when the folder cannot be read, or the disk does not say what lies there.
pub(crate) fn list(folder: &Path) -> Result<Listing, Fatal> {
    let mut listing = Listing {
        shards: Vec::new(),
        unanswered: Vec::new(),
        no_files: Vec::new(),
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
            Ok(false) if is_shard => {
                let is = match is_folder(&path)? {
                    true => "a folder",
                    false => "a pipe, a socket or a device",
                };
                listing.no_files.push(NoFile { path, is });
            }
            Err(_) if is_shard && is_link(&path)? => {
                let is = "a link that leads nowhere";
                listing.no_files.push(NoFile { path, is });
            }
            // It is no shard, or it was removed since.
            Ok(false) | Err(_) => {}
        }
    }
    listing.shards.sort();
    Ok(listing)
}
