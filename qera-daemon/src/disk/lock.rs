//! Locks: what keeps two processes out of one folder, and a reader off a file that is being
//! written.

use core::time::Duration;
use std::fs::{self, File, TryLockError};
use std::io::{Error as IoError, ErrorKind, Read, Result as IoResult, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::Fatal;

const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// A lock file, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock file and writes into it who holds it. A reader of the state looks at the lock
    /// for a moment, so it is tried for a second.
    ///
    /// # Errors
    /// [`Fatal::Locked`] with what the holder wrote, [`Fatal::Io`].
    pub(crate) fn take(path: &Path) -> Result<Self, Fatal> {
        let mut file = open(path).map_err(Fatal::io(path, "open the lock"))?;
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
        Ok(Self { _file: file })
    }
}

/// Opens the lock file, or makes it. What a link leads to is somebody else's file, and would be
/// overwritten.
fn open(path: &Path) -> IoResult<File> {
    let mut options = File::options();
    options.read(true).write(true);
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let not_ours =
        || IoError::other("is no file of a lock, but a link, a pipe or a folder: remove it");
    let named = fs::symlink_metadata(path)?;
    if !named.is_file() {
        return Err(not_ours());
    }
    let file = options.open(path)?;
    let opened = file.metadata()?;
    // Something else may have taken the name in between.
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(not_ours());
    }
    Ok(file)
}

/// Whether another process holds this lock file. One that nobody holds is a leftover; what is no
/// file is no lock, and could block.
pub(crate) fn is_held(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
        && File::open(path)
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
