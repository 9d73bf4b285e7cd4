//! Where the file of a taken shard may be: in the watched folder, or where `--consume move` puts
//! it.

use std::path::{Path, PathBuf};

/// The subfolder of the watched folder into which `--consume move` moves shards.
pub(crate) const CONSUMED: &str = ".consumed";

/// The possible paths of a shard with this name, the watched folder first.
#[must_use]
pub(crate) fn places_of(watched: &Path, name: &str) -> [PathBuf; 2] {
    [watched.join(name), watched.join(CONSUMED).join(name)]
}
