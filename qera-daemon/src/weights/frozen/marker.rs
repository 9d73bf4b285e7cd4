//! Which files of W~ count. The layers of a site are rounded together: their files are written
//! first, and then a marker that names them, so that after a kill all of them count or none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::disk::presence::{exists, is_folder};
use crate::disk::{TEMPORARY, sync};
use crate::error::Fatal;
use crate::weights::frozen::file::{path_of, refuse};

/// The extensions of markers and of layers' files.
const MARKER: &str = "done";
const LAYER: &str = "safetensors";

/// The layers that the markers of a folder name; empty where there is no folder.
///
/// # Errors
/// [`Fatal::StateRefused`] for a marker that cannot be read or names a file that is missing, and
/// [`Fatal::Io`].
pub(crate) fn whole(folder: &Path) -> Result<BTreeSet<String>, Fatal> {
    let mut all = BTreeSet::new();
    for marker in paths(folder, MARKER)? {
        all.extend(named(&marker)?);
    }
    for layer in &all {
        let path = path_of(folder, layer);
        if !exists(&path)? {
            let why = "is missing; put back the file that was there";
            return Err(refuse(&path, layer, &why));
        }
    }
    Ok(all)
}

/// Makes these layers count from now on, all at once; their files are written.
///
/// # Errors
/// The marker cannot be written, as for [`whole`].
pub(crate) fn mark(folder: &Path, layers: &[&str]) -> Result<(), Fatal> {
    let Some(first) = layers.first() else {
        return Ok(());
    };
    let marker = path_of(folder, first).with_extension(MARKER);
    let mut names = named(&marker)?;
    names.extend(layers.iter().map(|&layer| layer.to_owned()));
    write(folder, &marker, &names)
}

/// Makes these layers not count any more, because their files are about to be overwritten.
///
/// # Errors
/// The marker cannot be removed, as for [`whole`].
pub(crate) fn withdraw(folder: &Path, layers: &[&str]) -> Result<(), Fatal> {
    let mut are_there = false;
    for layer in layers {
        are_there = are_there || exists(&path_of(folder, layer))?;
    }
    if !are_there {
        return Ok(());
    }
    for marker in paths(folder, MARKER)? {
        let mut names = named(&marker)?;
        let before = names.len();
        names.retain(|name| !layers.contains(&name.as_str()));
        if names.len() < before {
            write(folder, &marker, &names)?;
        }
    }
    Ok(())
}

/// Removes files of a killed run that no marker names.
///
/// # Errors
/// The files cannot be removed, as for [`whole`].
pub(crate) fn remove_leftovers(folder: &Path) -> Result<(), Fatal> {
    let kept: BTreeSet<PathBuf> = whole(folder)?
        .iter()
        .map(|layer| path_of(folder, layer))
        .collect();
    let found = paths(folder, LAYER)?.into_iter();
    let mut leftovers = found.filter(|path| !kept.contains(path));
    leftovers.try_for_each(|path| disk::remove(&path))
}

/// Removes every W~ of a folder, the markers first.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn clear(folder: &Path) -> Result<(), Fatal> {
    let markers = paths(folder, MARKER)?;
    markers.iter().try_for_each(|path| disk::remove(path))?;
    if !markers.is_empty() {
        sync(folder)?;
    }
    remove_leftovers(folder)
}

fn write(folder: &Path, marker: &Path, names: &BTreeSet<String>) -> Result<(), Fatal> {
    let name = marker.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = folder.join(format!("{TEMPORARY}{name}"));
    disk::write_json(&unfinished, names)?;
    disk::rename(&unfinished, marker).map_err(Fatal::io(marker, "rename into place"))?;
    sync(folder)
}

/// The layers that a marker names; empty where the marker is not there.
fn named(marker: &Path) -> Result<BTreeSet<String>, Fatal> {
    let Some(bytes) = disk::read_if_there(marker)? else {
        return Ok(BTreeSet::new());
    };
    serde_json::from_slice(&bytes).map_err(|why| Fatal::StateRefused {
        path: marker.to_path_buf(),
        reason: format!(
            "its names of the layers that were rounded together cannot be read: {why}; put back the file that was there, or choose another --state"
        ),
    })
}

/// The files of a folder with this extension, including unfinished ones.
fn paths(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Fatal> {
    if !is_folder(folder)? {
        return Ok(Vec::new());
    }
    let mut found = disk::list(folder).map_err(Fatal::io(folder, "read"))?;
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        path.extension().is_some_and(|of| of == extension)
            && !name.starts_with(TEMPORARY.as_bytes())
    });
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_what_a_marker_names() {
        let name = format!("qera-marker-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        assert!(whole(&folder).unwrap().is_empty());
        std::fs::create_dir_all(&folder).unwrap();
        let all = ["a", "b", "c/c", "d"];
        for layer in all {
            std::fs::write(path_of(&folder, layer), layer).unwrap();
        }
        mark(&folder, &["a", "b"]).unwrap();
        mark(&folder, &["c/c"]).unwrap();
        let names = |of: &[&str]| of.iter().map(|&s| s.to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(whole(&folder).unwrap(), names(&["a", "b", "c/c"]));
        remove_leftovers(&folder).unwrap();
        assert!(!path_of(&folder, "d").exists() && path_of(&folder, "c/c").exists());
        // One of the two is about to be overwritten; the other one still counts.
        withdraw(&folder, &["a"]).unwrap();
        assert_eq!(whole(&folder).unwrap(), names(&["b", "c/c"]));
        mark(&folder, &["a"]).unwrap();
        assert_eq!(whole(&folder).unwrap(), names(&["a", "b", "c/c"]));

        std::fs::remove_file(path_of(&folder, "b")).unwrap();
        let missing = whole(&folder).unwrap_err();
        assert_eq!(missing.exit(), crate::exit::Exit::StateRefused);
        let said = missing.to_string();
        assert!(said.contains("layer b: is missing"), "{said}");
        std::fs::write(folder.join("a.done"), "[1]").unwrap();
        let damaged = remove_leftovers(&folder).unwrap_err().to_string();
        assert!(damaged.contains("a.done"), "{damaged}");
        assert!(path_of(&folder, "a").exists());
        clear(&folder).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
