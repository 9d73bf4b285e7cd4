//! Files that survive a crash whole or not at all: written aside, synced, renamed in, the folder synced. And the lock
//! that keeps two processes out of one folder.

pub(crate) mod mapping;

use core::time::Duration;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::error::Fatal;

/// What the names of half-done work begin with; nothing else is ever removed.
pub(crate) const TEMPORARY: &str = ".qera-unfinished-";
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Takes the lock file, for as long as the returned file is open, and writes into it who holds it. A reader of the
/// state looks at the lock for a moment, so it is tried for a second.
///
/// # Errors
/// [`Fatal::Locked`] with what the holder wrote, [`Fatal::Io`].
pub(crate) fn lock(path: &Path) -> Result<File, Fatal> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Fatal::io(path, "open the lock"))?;
    let mut attempts = 0;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if attempts < ATTEMPTS => {
                attempts += 1;
                std::thread::sleep(PAUSE);
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message; an unreadable holder does not change the answer.
                let _ = file.read_to_string(&mut holder);
                return Err(Fatal::Locked {
                    path: path.to_path_buf(),
                    holder: holder.trim().to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(Fatal::io(path, "lock")(error)),
        }
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    file.set_len(0).map_err(Fatal::io(path, "write the lock"))?;
    writeln!(file, "pid {} on {}", std::process::id(), host.trim())
        .map_err(Fatal::io(path, "write the lock"))?;
    Ok(file)
}

/// Removes a file or a folder with all that is in it.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn remove(path: &Path) -> Result<(), Fatal> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let removed = if is_folder {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(Fatal::io(path, "remove"))
}

/// Writes a small file and syncs it.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Fatal> {
    let mut file = File::create(path).map_err(Fatal::io(path, "create"))?;
    file.write_all(bytes).map_err(Fatal::io(path, "write"))?;
    file.sync_all().map_err(Fatal::io(path, "sync"))
}

/// Writes a value as JSON and syncs the file.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Fatal> {
    let json = serde_json::to_vec_pretty(value).map_err(|e| Fatal::io(path, "write")(e.into()))?;
    write_synced(path, &json)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn sync(folder: &Path) -> Result<(), Fatal> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(Fatal::io(folder, "sync"))
}
