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
    if !is_still(file, &folder.join(&file.name))? {
        return Ok(());
    }
    if !is_folder(consumed).map_err(Error::other)? {
        disk::create_private_folder(consumed)?;
        disk::sync(folder).map_err(Error::other)?;
    }
    take_away(folder, consumed, file, how)
}

/// Moves aside what lies under the shard's name, and looks at it again there, where no producer
/// changes it: since the first look another shard may have come under that name.
fn take_away(
    folder: &Path,
    consumed: &Path,
    file: &ShardFile,
    how: Consume,
) -> std::io::Result<()> {
    let name = &file.name;
    let aside = free(consumed, name)?;
    disk::rename(&folder.join(name), &aside)?;
    let is_still = is_still(file, &aside);
    if !matches!(is_still, Ok(true)) {
        disk::rename(&aside, &free(folder, name)?)?;
        return is_still.map(drop);
    }
    if how == Consume::Delete {
        disk::remove_file(&aside)?;
    }
    Ok(())
}

/// Whether this is the file that was read.
fn is_still(file: &ShardFile, path: &Path) -> std::io::Result<bool> {
    match Identity::at(path) {
        Err(error) if is_failure(&error) => Err(error),
        now => Ok(now.is_ok_and(|now| now == file.identity)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::simulated::{Disk, Image, Trouble};

    /// A producer puts another shard under the name after the first look.
    #[test]
    fn what_came_under_the_name_meanwhile_is_put_back() {
        let mut image = Image::default();
        image.put("watched/a.safetensors", b"counted");
        image.put("watched/.consumed/earlier", b"");
        let disk = Disk::mount("consume", image, Trouble::None);
        let (folder, consumed) = (
            disk.root().join("watched"),
            disk.root().join("watched/.consumed"),
        );
        let path = folder.join("a.safetensors");
        let file = ShardFile {
            name: "a.safetensors".into(),
            identity: Identity::at(&path).unwrap(),
        };
        for how in [Consume::Delete, Consume::Move] {
            disk::write_synced(&path, b"not counted").unwrap();
            take_away(&folder, &consumed, &file, how).unwrap();
            assert_eq!(disk::read(&path).unwrap(), b"not counted", "{how:?}");
            assert!(!exists(&consumed.join("a.safetensors")).unwrap(), "{how:?}");
        }
        let file = ShardFile {
            identity: Identity::at(&path).unwrap(),
            ..file
        };
        take_away(&folder, &consumed, &file, Consume::Delete).unwrap();
        assert!(!exists(&path).unwrap(), "the file that was counted goes");
        Disk::unmount("consume");
    }
}
