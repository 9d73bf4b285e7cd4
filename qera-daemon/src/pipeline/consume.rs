//! What becomes of a shard's file when a snapshot holds its rows (`--consume`).

use std::io::Error;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::disk::identity::Identity;
use crate::disk::presence::{exists, is_folder};
use crate::disk::tried::is_failure;
use crate::pipeline::supply::{ShardFile, ShardSupply};
use crate::settings::source::Consume;
use crate::source::consumed::CONSUMED;

impl ShardSupply<'_> {
    /// Does what `--consume` says with the files whose rows a snapshot holds; returns what stood in
    /// the way. Each file is first moved aside and looked at there: if it is another file by now,
    /// it is put back.
    pub(crate) fn consume(&mut self) -> Vec<String> {
        let how = self.context.settings.source.consume;
        if how == Consume::Keep {
            self.consumable.clear();
            return Vec::new();
        }
        let folder = self.intake.folder();
        let consumed = folder.join(CONSUMED);
        // The folder is gone for a while, or the disk does not answer; this is tried later.
        if self.consumable.is_empty() || !is_folder(folder).unwrap_or(false) {
            return Vec::new();
        }
        // The folder may be older than this run. If it belongs to another user its mode stays as it
        // is.
        let _ = disk::make_private(&consumed);
        let mut problems = Vec::new();
        for file in core::mem::take(&mut self.consumable) {
            if let Err(error) = consume_one(folder, &consumed, &file, how) {
                problems.push(format!("{} cannot be consumed: {error}", file.name));
            }
        }
        // The folder is empty after deleting; if it is not, it stays.
        let _ = disk::remove_empty(&consumed);
        problems
    }
}

fn consume_one(
    folder: &Path,
    consumed: &Path,
    file: &ShardFile,
    how: Consume,
) -> std::io::Result<()> {
    let (name, path) = (&file.name, &folder.join(&file.name));
    let same = |path: &Path| match Identity::at(path) {
        Err(error) if is_failure(&error) => Err(error),
        now => Ok(now.is_ok_and(|now| now == file.identity)),
    };
    if !same(path)? {
        return Ok(());
    }
    if !is_folder(consumed).map_err(Error::other)? {
        disk::create_private_folder(consumed)?;
        disk::sync(folder).map_err(Error::other)?;
    }
    let aside = free(consumed, name)?;
    disk::rename(path, &aside)?;
    let is_same = same(&aside);
    if !matches!(is_same, Ok(true)) {
        disk::rename(&aside, &free(folder, name)?)?;
        return is_same.map(drop);
    }
    if how == Consume::Delete {
        disk::remove_file(&aside)?;
    }
    Ok(())
}

/// A name that nothing in the folder has. An earlier shard of the same name must not be overwritten
/// by a later one.
fn free(folder: &Path, name: &str) -> std::io::Result<PathBuf> {
    let mut path = folder.join(name);
    let mut number = 0_u64;
    while exists(&path).map_err(Error::other)? {
        number += 1;
        path = folder.join(format!("{number}-{name}"));
    }
    Ok(path)
}
