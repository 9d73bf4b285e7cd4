//! What stands in an output folder and in a state: generations, and the files of the newest
//! snapshot.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotFile {
    /// Its name in the snapshot's folder.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// The numbers of the generations in an output folder, sorted.
///
/// # Panics
/// When there is no such folder.
#[must_use]
pub fn generations(out: &Path) -> Vec<u64> {
    let mut found: Vec<u64> = std::fs::read_dir(out.join("generations"))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .collect();
    found.sort_unstable();
    found
}

/// Takes the seal out of the manifest of a generation, or of a copy of one, as programs wrote it
/// that sealed nothing: a test that changes a file then meets the check of what it says, and not
/// the one of its bytes. A manifest that is no JSON stays as it is.
///
/// # Panics
/// When it cannot be written.
pub fn unseal(generation: &Path) {
    let path = generation.join("qera_manifest.json");
    let read = std::fs::read(&path).ok();
    let Some(Value::Object(mut manifest)) = read.and_then(|of| serde_json::from_slice(&of).ok())
    else {
        return;
    };
    for of_sealed in ["generation", "state", "bases", "files", "seal"] {
        manifest.remove(of_sealed);
    }
    manifest.insert("manifest_version".into(), 4.into());
    std::fs::write(path, Value::Object(manifest).to_string()).unwrap();
}

/// The folder of the newest snapshot of a state.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn newest_snapshot(state: &Path) -> PathBuf {
    let snapshots = std::fs::read_dir(state.join("snapshots")).unwrap();
    snapshots.map(|e| e.unwrap().path()).max().unwrap()
}

/// Every file in a folder and in those within it, by its path; none where there is no folder.
///
/// # Panics
/// When one cannot be read.
#[must_use]
pub fn files_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.append(&mut files_below(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            files.insert(path, bytes);
        }
    }
    files
}

/// The tensor files of the newest snapshot, sorted: all that it holds but its index, which names
/// the shards' numbers.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn snapshot_files(state: &Path) -> Vec<SnapshotFile> {
    let mut files: Vec<_> = std::fs::read_dir(newest_snapshot(state))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|path| SnapshotFile {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            bytes: std::fs::read(path).unwrap(),
        })
        .collect();
    files.sort();
    files
}

/// Those of [`snapshot_files`] that hold statistics.
#[must_use]
pub fn statistics_files(state: &Path) -> Vec<SnapshotFile> {
    let mut files = snapshot_files(state);
    files.retain(|file| file.name.contains(".statistics."));
    files
}
