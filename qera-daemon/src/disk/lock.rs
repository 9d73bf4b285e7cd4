//! Locks keep two processes out of one folder, and a reader away from a file that is being written.

use core::time::Duration;
use std::io::{Error as IoError, ErrorKind, Result as IoResult};
use std::path::Path;

use crate::disk::clock;
use crate::disk::handle::{Handle, Opening};
use crate::disk::system::{FileKind, stat, stat_link};
use crate::error::Fatal;

const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// The most bytes that a holder's description of itself has.
const HOLDER: usize = 1024;

/// A lock file, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Handle,
}

impl Lock {
    /// Locks a lock file, and writes into it who holds it. A reader of the state holds the lock for
    /// a moment, so that this is tried for a second.
    ///
    /// # Errors
    /// [`Fatal::Locked`] with the holder's description, [`Fatal::Io`].
    pub(crate) fn take(path: &Path) -> Result<Self, Fatal> {
        let file = open(path).map_err(Fatal::io(path, "open the lock"))?;
        let mut attempts = 0;
        while !file.lock().map_err(Fatal::io(path, "lock"))? {
            if attempts == ATTEMPTS {
                let mut holder = [0; HOLDER];
                // The description is only for the message; the lock is held whether it can be read
                // or not.
                let length = file.read_at(&mut holder, 0).unwrap_or_default();
                let holder = String::from_utf8_lossy(&holder[..length]);
                return Err(Fatal::Locked {
                    path: path.to_path_buf(),
                    holder: holder.trim().to_owned(),
                });
            }
            attempts += 1;
            clock::pause(PAUSE);
        }
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        file.set_len(0).map_err(Fatal::io(path, "write the lock"))?;
        let holder = format!("pid {} on {}\n", std::process::id(), host.trim());
        file.write_all(holder.as_bytes())
            .map_err(Fatal::io(path, "write the lock"))?;
        Ok(Self { _file: file })
    }
}

/// Opens the lock file, or creates it. A link is refused, because it leads to somebody else's file,
/// which would be overwritten.
fn open(path: &Path) -> IoResult<Handle> {
    match Handle::open(path, Opening::NewLock) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let not_ours =
        || IoError::other("is no file of a lock, but a link, a pipe or a folder: remove it");
    let named = stat_link(path)?;
    if named.kind != FileKind::File {
        return Err(not_ours());
    }
    let file = Handle::open(path, Opening::Lock)?;
    let opened = file.stat()?;
    // Another file may have taken the name in between.
    if [opened.device, opened.inode] != [named.device, named.inode] {
        return Err(not_ours());
    }
    Ok(file)
}

/// Whether another process holds this lock file. A lock file that nobody holds is a leftover;
/// anything that is no file is no lock, and could block.
pub(crate) fn is_held(path: &Path) -> bool {
    stat(path).is_ok_and(|of| of.kind == FileKind::File)
        && Handle::open(path, Opening::Read)
            .and_then(|file| file.lock_shared())
            .is_ok_and(|locked| !locked)
}
