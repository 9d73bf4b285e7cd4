//! Where a shard that was taken lies: in the watched folder, or where `--consume move` puts it.

use std::path::{Path, PathBuf};

/// What `--consume move` moves to, in the watched folder.
pub(crate) const CONSUMED: &str = ".consumed";

/// The places of a shard of this name, the watched folder first.
#[must_use]
pub(crate) fn places_of(watched: &Path, name: &str) -> [PathBuf; 2] {
    [watched.join(name), watched.join(CONSUMED).join(name)]
}
