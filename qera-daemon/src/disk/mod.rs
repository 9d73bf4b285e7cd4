//! The door to the disk: no other folder creates, opens, reads, writes, syncs, renames, removes,
//! locks, links or maps a file, or asks what a path names. This file has the operations on paths.
//! Open files are in `open_file`, `new_file`, `append` and `mapping`; `presence` tells what a path
//! names, `lock` keeps others out, `identity` tells files apart, `clock` is the time. Reading and
//! removing are tried three times (`tried`).
//!
//! A file is there whole after a crash, or not at all: it is written beside its place, synced and
//! renamed into place, and then the folder is synced.

pub(crate) mod append;
pub(crate) mod clock;
pub(crate) mod ends;
pub(crate) mod handle;
pub(crate) mod identity;
pub(crate) mod lock;
pub(crate) mod mapping;
pub(crate) mod new_file;
pub(crate) mod open_file;
pub(crate) mod presence;
pub(crate) mod room;
#[cfg(test)]
pub(crate) mod simulated;
pub(crate) mod storage_reads;
pub(crate) mod system;
pub(crate) mod tried;

use std::io::{Error as IoError, ErrorKind, Read, Result as IoResult, Write};
use std::path::{Component, Path, PathBuf};

use crate::disk::handle::{Handle, Opening};
use crate::disk::new_file::NewFile;
use crate::disk::open_file::OpenFile;
use crate::disk::presence::{exists, is_folder};
use crate::disk::room::when_there_is_room;
use crate::disk::system::{FileKind, stat_link};
use crate::disk::tried::{says_that_nothing_is_there, tried};
use crate::error::Fatal;
#[cfg(test)]
use crate::trials::turns;

/// The prefix of names of unfinished work. Only files with this prefix are ever cleaned up.
pub(crate) const TEMPORARY: &str = ".qera-unfinished-";
/// The most bytes of a file that people and tools write by hand or beside weights: configurations,
/// settings, lists of tensors.
const SMALL: u64 = 64 << 20;
/// Gives another number each time it is read.
const UNIQUE_NUMBERS: &str = "/proc/sys/kernel/random/uuid";
/// Bytes that are copied at a time.
const COPIED: usize = 1 << 20;
/// The mode of ordinary folders, before the umask.
const BY_THE_UMASK: u32 = 0o777;
/// The mode of folders that hold what users typed.
const PRIVATE_FOLDER: u32 = 0o700;

/// Reads a whole file.
///
/// # Errors
/// The system's error.
pub(crate) fn read(path: &Path) -> IoResult<Vec<u8>> {
    let file = OpenFile::open(path)?;
    let expected = usize::try_from(file.identity()?.bytes).unwrap_or_default();
    let mut bytes = Vec::with_capacity(expected);
    file.reader().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A number that the system gives only once; empty where it gives none.
pub(crate) fn unique_number() -> Vec<u8> {
    #[cfg(test)]
    if let Some(number) = turns::number() {
        return number.to_le_bytes().to_vec();
    }
    read(Path::new(UNIQUE_NUMBERS)).unwrap_or_default()
}

/// Reads the whole of a file that cannot be large.
///
/// # Errors
/// The system's error, or the error that the file is too large for what it should be.
pub(crate) fn read_small(path: &Path) -> IoResult<Vec<u8>> {
    let file = OpenFile::open(path)?;
    let mut bytes = Vec::new();
    file.reader().take(SMALL + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL {
        let said = format!(
            "is larger than {} MiB, which no file of this kind is",
            SMALL >> 20
        );
        return Err(IoError::new(ErrorKind::InvalidData, said));
    }
    Ok(bytes)
}

/// Reads a whole file; `None` where there is none.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Fatal> {
    match read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if says_that_nothing_is_there(&e) => Ok(None),
        Err(e) => Err(Fatal::io(path, "read")(e)),
    }
}

/// The paths in a folder, sorted by name.
///
/// # Errors
/// The system's error.
pub(crate) fn list(folder: &Path) -> IoResult<Vec<PathBuf>> {
    let mut paths = tried(|| system::entries(folder))?;
    paths.sort();
    Ok(paths)
}

/// The path without symlinks, from the root on.
///
/// # Errors
/// The system's error.
pub(crate) fn resolve(path: &Path) -> IoResult<PathBuf> {
    system::canonical(path)
}

/// The path without symlinks as far as it exists, followed by the part that does not exist. It is
/// the same for every way to write the path.
#[must_use]
pub(crate) fn full(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut full = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                full.pop();
            }
            part => full.push(part),
        }
        full = system::canonical(&full).unwrap_or(full);
    }
    full
}

/// Makes a symlink.
///
/// # Errors
/// The system's error.
pub(crate) fn symlink(target: &Path, link: &Path) -> IoResult<()> {
    when_there_is_room(link, || system::symlink(target, link))
}

/// Makes a folder where there is nothing. Nobody else may look into it, because it holds what users
/// typed.
///
/// # Errors
/// The system's error.
pub(crate) fn create_private_folder(path: &Path) -> IoResult<()> {
    when_there_is_room(path, || system::create_folder(path, PRIVATE_FOLDER))?;
    make_private(path)
}

/// Closes a folder to everybody else, whatever the umask was when it was made.
///
/// # Errors
/// The system's error.
pub(crate) fn make_private(folder: &Path) -> IoResult<()> {
    system::set_mode(folder, PRIVATE_FOLDER)
}

/// Makes a folder and its missing parents, and makes their names durable.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn create_folders(path: &Path) -> Result<(), Fatal> {
    let mut missing = Vec::new();
    for folder in path.ancestors().filter(|of| !of.as_os_str().is_empty()) {
        if exists(folder)? {
            break;
        }
        missing.push(folder);
    }
    for folder in missing.iter().rev() {
        match when_there_is_room(folder, || system::create_folder(folder, BY_THE_UMASK)) {
            // Somebody else made it meanwhile.
            Err(e) if e.kind() == ErrorKind::AlreadyExists && is_folder(folder)? => {}
            made => made.map_err(Fatal::io(folder, "create"))?,
        }
    }
    missing.iter().try_for_each(|made| {
        let parent = made.parent().filter(|of| !of.as_os_str().is_empty());
        sync(parent.unwrap_or(Path::new(".")))
    })
}

/// Moves a file or folder in one step.
///
/// # Errors
/// The system's error.
pub(crate) fn rename(from: &Path, to: &Path) -> IoResult<()> {
    when_there_is_room(to, || system::rename(from, to))
}

/// Removes a file.
///
/// # Errors
/// The system's error.
pub(crate) fn remove_file(path: &Path) -> IoResult<()> {
    system::remove_file(path)
}

/// Removes a folder that is empty.
///
/// # Errors
/// The system's error.
pub(crate) fn remove_empty(folder: &Path) -> IoResult<()> {
    system::remove_folder(folder)
}

/// Removes a file, or a folder with everything in it.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn remove(path: &Path) -> Result<(), Fatal> {
    let remove = || match stat_link(path)?.kind {
        FileKind::Folder => system::remove_tree(path),
        FileKind::File | FileKind::Link | FileKind::Other => system::remove_file(path),
    };
    tried(remove).map_err(Fatal::io(path, "remove"))
}

/// Removes unfinished work of a killed run, and what is renamed out of sight, from a folder.
///
/// # Errors
/// [`Fatal::Io`] for the first that cannot be removed; the others are gone then.
pub(crate) fn remove_unfinished(folder: &Path) -> Result<(), Fatal> {
    let unfinished = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default();
        name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
    };
    let found = list(folder).map_err(Fatal::io(folder, "read"))?;
    let found = found.iter().filter(|path| unfinished(path));
    found.map(|path| remove(path)).fold(Ok(()), Result::and)
}

/// Writes a small file and syncs it.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Fatal> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes).map_err(Fatal::io(path, "write"))?;
    file.sync()
}

/// Writes a small file on which nothing depends.
///
/// # Errors
/// The system's error.
pub(crate) fn write_small(path: &Path, bytes: &[u8]) -> IoResult<()> {
    Handle::open(path, Opening::Write(None))?.write_all(bytes)
}

/// Writes a small file that nobody else may read, and syncs it.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write_private_synced(path: &Path, bytes: &[u8]) -> Result<(), Fatal> {
    let mut file = NewFile::create_private(path)?;
    file.write_all(bytes).map_err(Fatal::io(path, "write"))?;
    file.sync()
}

/// Copies a file's content to a new file with the same permissions, and syncs that.
///
/// # Errors
/// [`Fatal::Io`] with the path of the file that failed.
pub(crate) fn copy_synced(from: &Path, to: &Path) -> Result<(), Fatal> {
    let unread = || Fatal::io(from, "read");
    let file = OpenFile::open(from).map_err(unread())?;
    let mode = file.mode().map_err(unread())?;
    let (mut reader, mut copy) = (file.reader(), NewFile::create_with(to, mode)?);
    let mut buffer = vec![0; COPIED];
    loop {
        let count = reader.read(&mut buffer).map_err(unread())?;
        if count == 0 {
            return copy.sync();
        }
        let written = copy.write_all(&buffer[..count]);
        written.map_err(Fatal::io(to, "write"))?;
    }
}

/// Writes a value as JSON and syncs the file.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Fatal> {
    write_synced(path, &json(path, value)?)
}

/// Writes a value as JSON in the way of [`replace`].
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn replace_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Fatal> {
    replace(path, &json(path, value)?)
}

fn json(path: &Path, value: &impl serde::Serialize) -> Result<Vec<u8>, Fatal> {
    serde_json::to_vec_pretty(value).map_err(|e| Fatal::io(path, "write")(e.into()))
}

/// Writes a small file aside, syncs it and renames it into place. The old file is there until the
/// new one is whole.
///
/// # Errors
/// [`Fatal::Usage`] for a path without a name, [`Fatal::Io`].
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> Result<(), Fatal> {
    replace_by(file, |aside| write_synced(aside, bytes))
}

/// Like [`replace`], for a file that nobody else may read.
///
/// # Errors
/// Writing or renaming the file fails, as for [`replace`].
pub(crate) fn replace_private(file: &Path, bytes: &[u8]) -> Result<(), Fatal> {
    replace_by(file, |aside| write_private_synced(aside, bytes))
}

fn replace_by(file: &Path, write: impl FnOnce(&Path) -> Result<(), Fatal>) -> Result<(), Fatal> {
    let no_name = || Fatal::Usage(format!("{}: is no name of a file", file.display()));
    let name = file.file_name().ok_or_else(no_name)?;
    let folder = file.parent().filter(|of| !of.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut aside = std::ffi::OsString::from(TEMPORARY);
    aside.push(name);
    let aside = folder.join(aside);
    write(&aside)?;
    rename(&aside, file).map_err(Fatal::io(file, "rename into place"))?;
    sync(folder)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn sync(folder: &Path) -> Result<(), Fatal> {
    tried(|| Handle::open(folder, Opening::Read))
        .and_then(|folder| folder.sync())
        .map_err(Fatal::io(folder, "sync"))
}
