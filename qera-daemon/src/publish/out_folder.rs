//! The output folder: locked while in use, generations numbered, `current` switched atomically.
//!
//! ```text
//! OUT/.lock                      held by the running process; text says by whom
//! OUT/base/                      W~ as a checkpoint (--emit-base)
//! OUT/generations/000001/        one adapter
//! OUT/current -> generations/000001
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::error::Stop;

/// What the names of half-done work begin with; nothing else is ever removed.
const TEMPORARY: &str = ".qera-unfinished-";

/// The folder, held until dropped.
#[derive(Debug)]
pub struct OutFolder {
    /// Its absolute path.
    pub path: PathBuf,
    _lock: File,
}

impl OutFolder {
    /// Creates the folder where it is missing, locks it, and removes what a killed run left half done.
    ///
    /// # Errors
    /// [`Stop::Locked`] when another process holds it, [`Stop::Io`] with the path otherwise.
    pub fn open(path: &Path) -> Result<Self, Stop> {
        fs::create_dir_all(path.join("generations"))
            .map_err(Stop::io(path, "create the output folder"))?;
        let path = fs::canonicalize(path).map_err(Stop::io(path, "resolve"))?;
        if let Some(parent) = path.parent() {
            sync(parent)?;
        }
        let lock = lock(&path.join(".lock"))?;
        for folder in [path.clone(), path.join("generations")] {
            for entry in fs::read_dir(&folder).map_err(Stop::io(&folder, "read"))? {
                let entry = entry.map_err(Stop::io(&folder, "read"))?.path();
                if entry
                    .file_name()
                    .is_some_and(|n| n.as_encoded_bytes().starts_with(TEMPORARY.as_bytes()))
                {
                    remove(&entry)?;
                }
            }
        }
        let out = Self { path, _lock: lock };
        out.check()?;
        Ok(out)
    }

    /// Finds out now what would otherwise fail after hours of solving.
    fn check(&self) -> Result<(), Stop> {
        let current = self.path.join("current");
        if fs::symlink_metadata(&current).is_ok_and(|m| !m.is_symlink()) {
            let reason =
                "is no symlink; move it away, qera switches it to each new generation".into();
            return Err(Stop::StateRefused {
                path: current,
                reason,
            });
        }
        for parent in ["", "generations"] {
            remove(&self.aside(parent)?)?;
        }
        Ok(())
    }

    /// Removes what was written aside when the rest failed, so that a full disk is not kept full.
    pub fn abandon(&self, parent: &str) {
        let aside = self
            .path
            .join(parent)
            .join(format!("{TEMPORARY}{}", std::process::id()));
        // The failure that led here is the one to report.
        let _ = fs::remove_dir_all(aside);
    }

    /// The number that the next generation gets: one more than the largest there.
    ///
    /// # Errors
    /// [`Stop::Io`] when the folder cannot be read.
    pub fn next_generation(&self) -> Result<u64, Stop> {
        let folder = self.path.join("generations");
        let mut last = 0_u64;
        for entry in fs::read_dir(&folder).map_err(Stop::io(&folder, "read"))? {
            let name = entry.map_err(Stop::io(&folder, "read"))?.file_name();
            last = last.max(name.to_str().and_then(|n| n.parse().ok()).unwrap_or(0));
        }
        Ok(last.saturating_add(1))
    }

    /// Makes an empty folder beside the place where it will be renamed to.
    ///
    /// # Errors
    /// [`Stop::Io`].
    pub fn aside(&self, parent: &str) -> Result<PathBuf, Stop> {
        let path = self
            .path
            .join(parent)
            .join(format!("{TEMPORARY}{}", std::process::id()));
        fs::create_dir_all(&path).map_err(Stop::io(&path, "create"))?;
        Ok(path)
    }

    /// Syncs the folder written aside and renames it to `parent/name`.
    ///
    /// # Errors
    /// [`Stop::Io`].
    pub fn rename_in(&self, aside: &Path, parent: &str, name: &str) -> Result<PathBuf, Stop> {
        let parent = self.path.join(parent);
        let target = parent.join(name);
        sync(aside)?;
        fs::rename(aside, &target).map_err(Stop::io(&target, "rename into place"))?;
        sync(&parent)?;
        Ok(target)
    }

    /// Points `current` at `generations/NAME`: a reader sees the old generation or the new one.
    ///
    /// # Errors
    /// [`Stop::Io`].
    pub fn switch_current(&self, name: &str) -> Result<(), Stop> {
        let link = self
            .path
            .join(format!("{TEMPORARY}current-{}", std::process::id()));
        let current = self.path.join("current");
        std::os::unix::fs::symlink(Path::new("generations").join(name), &link)
            .map_err(Stop::io(&link, "create"))?;
        fs::rename(&link, &current).map_err(Stop::io(&current, "switch"))?;
        sync(&self.path)
    }
}

fn lock(path: &Path) -> Result<File, Stop> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Stop::io(path, "open the lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message; an unreadable holder does not change the answer.
            let _ = file.read_to_string(&mut holder);
            return Err(Stop::Locked {
                path: path.to_path_buf(),
                holder: holder.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(Stop::io(path, "lock")(error)),
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    file.set_len(0).map_err(Stop::io(path, "write the lock"))?;
    writeln!(file, "pid {} on {}", std::process::id(), host.trim())
        .map_err(Stop::io(path, "write the lock"))?;
    Ok(file)
}

fn remove(path: &Path) -> Result<(), Stop> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let removed = if is_folder {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(Stop::io(path, "remove"))
}

/// Writes a small file and syncs it.
///
/// # Errors
/// [`Stop::Io`].
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), Stop> {
    let mut file = File::create(path).map_err(Stop::io(path, "create"))?;
    file.write_all(bytes).map_err(Stop::io(path, "write"))?;
    file.sync_all().map_err(Stop::io(path, "sync"))
}

/// Writes a value as JSON and syncs the file.
///
/// # Errors
/// [`Stop::Io`].
pub(super) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), Stop> {
    let json = serde_json::to_vec_pretty(value).map_err(|e| Stop::io(path, "write")(e.into()))?;
    write_synced(path, &json)
}

fn sync(folder: &Path) -> Result<(), Stop> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(Stop::io(folder, "sync"))
}
