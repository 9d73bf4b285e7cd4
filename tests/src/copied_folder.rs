//! Folders in another place.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::fs;
use std::path::Path;

/// Copies a folder with all that is in it to another path, where nothing else is left.
///
/// # Panics
/// Where the system refuses.
pub fn copy_folder(from: &Path, to: &Path) {
    // It may not be there.
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
