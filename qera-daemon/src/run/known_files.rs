//! Which files of the watched folder are shards of which the journal has only briefs.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::disk::identity::Identity;
use crate::disk::presence::is_folder;
use crate::disk::tried::is_failure;
use crate::error::Fatal;
use crate::source::consumed::CONSUMED;
use crate::source::reading::content;
use crate::source::shard::ShardHeader;
use crate::state::briefs::file_digest;
use crate::state::journal::{Journal, NamedFile};

/// The files of the folder that are such shards, with their names and identities.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn known_files(journal: &Journal, watched: &Path) -> Result<Vec<NamedFile>, Fatal> {
    let digests: HashSet<u64> = journal.briefs().map(|of| of.brief.file).collect();
    let mut known = Vec::new();
    if digests.is_empty() {
        return Ok(known);
    }
    for path in paths_in(watched)? {
        if let Some(of) = named(&path)?
            && digests.contains(&file_digest(&of.name, of.file))
        {
            known.push(of);
        }
    }
    Ok(known)
}

/// Turns briefs of shards beyond number `from` into records again, because no snapshot holds those
/// shards. Their files are found by content, in the folder or where `--consume move` puts them.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn recall(journal: &mut Journal, from: u64, watched: &Path) -> Result<(), Fatal> {
    if journal.briefs().all(|of| of.number <= from) {
        return Ok(());
    }
    let mut there = HashMap::new();
    for folder in [watched.join(CONSUMED), watched.to_path_buf()] {
        for path in paths_in(&folder)? {
            let Some(of) = named(&path)? else {
                continue;
            };
            match ShardHeader::open(&path).and_then(|header| content(&header)) {
                Ok(content) => drop(there.insert(content, of)),
                Err(refusal) => refusal.if_failed(&path)?,
            }
        }
    }
    journal.recall(from, |brief| there.remove(&brief.content_hex()));
    Ok(())
}

/// The shards in a folder; none where the folder is gone.
fn paths_in(folder: &Path) -> Result<Vec<PathBuf>, Fatal> {
    let mut paths = match disk::list(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(Fatal::io(folder, "read"))?,
    };
    paths.retain(|path| path.extension().is_some_and(|of| of == "safetensors"));
    let mut shards = Vec::new();
    for path in paths {
        if !is_folder(&path)? {
            shards.push(path);
        }
    }
    Ok(shards)
}

/// A file with its identity; `None` where it is gone by now, or its name is no text.
fn named(path: &Path) -> Result<Option<NamedFile>, Fatal> {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(None);
    };
    match Identity::at(path) {
        Ok(file) => Ok(Some(NamedFile {
            name: name.to_owned(),
            file,
        })),
        Err(error) if is_failure(&error) => Err(Fatal::io(path, "look at")(error)),
        Err(_) => Ok(None),
    }
}
