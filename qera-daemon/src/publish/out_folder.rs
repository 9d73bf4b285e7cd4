//! The output folder: locked while in use, generations numbered, `current` switched atomically.
//!
//! ```text
//! OUT/.lock                      held by the running process; text says by whom
//! OUT/base/                      W~ as a checkpoint (--emit-base)
//! OUT/generations/000001/        one adapter
//! OUT/current -> generations/000001
//! OUT/state/                     unless --state names another folder
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::disk::{TEMPORARY, lock, remove, sync};
use crate::error::Fatal;

/// The folder, held until dropped.
#[derive(Debug)]
pub(crate) struct OutFolder {
    /// Its absolute path.
    pub(crate) path: PathBuf,
    _lock: File,
}

impl OutFolder {
    /// Creates the folder where it is missing, locks it, and removes what a killed run left half done.
    ///
    /// # Errors
    /// [`Fatal::Locked`] when another process holds it, [`Fatal::Io`] with the path otherwise.
    pub(crate) fn open(path: &Path) -> Result<Self, Fatal> {
        fs::create_dir_all(path.join("generations"))
            .map_err(Fatal::io(path, "create the output folder"))?;
        let path = fs::canonicalize(path).map_err(Fatal::io(path, "resolve"))?;
        if let Some(parent) = path.parent() {
            sync(parent)?;
        }
        let lock = lock(&path.join(".lock"))?;
        for folder in [path.clone(), path.join("generations")] {
            for entry in fs::read_dir(&folder).map_err(Fatal::io(&folder, "read"))? {
                let entry = entry.map_err(Fatal::io(&folder, "read"))?.path();
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
    fn check(&self) -> Result<(), Fatal> {
        let current = self.path.join("current");
        if fs::symlink_metadata(&current).is_ok_and(|m| !m.is_symlink()) {
            let reason =
                "is no symlink; move it away, qera switches it to each new generation".into();
            return Err(Fatal::StateRefused {
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
    pub(crate) fn abandon(&self, parent: &str) {
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
    /// [`Fatal::Io`] when the folder cannot be read.
    pub(crate) fn next_generation(&self) -> Result<u64, Fatal> {
        let folder = self.path.join("generations");
        let mut last = 0_u64;
        for entry in fs::read_dir(&folder).map_err(Fatal::io(&folder, "read"))? {
            let name = entry.map_err(Fatal::io(&folder, "read"))?.file_name();
            last = last.max(name.to_str().and_then(|n| n.parse().ok()).unwrap_or(0));
        }
        Ok(last.saturating_add(1))
    }

    /// Makes an empty folder beside the place where it will be renamed to.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn aside(&self, parent: &str) -> Result<PathBuf, Fatal> {
        let path = self
            .path
            .join(parent)
            .join(format!("{TEMPORARY}{}", std::process::id()));
        fs::create_dir_all(&path).map_err(Fatal::io(&path, "create"))?;
        Ok(path)
    }

    /// Syncs the folder written aside and renames it to `parent/name`.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn rename_in(
        &self,
        aside: &Path,
        parent: &str,
        name: &str,
    ) -> Result<PathBuf, Fatal> {
        let parent = self.path.join(parent);
        let target = parent.join(name);
        sync(aside)?;
        fs::rename(aside, &target).map_err(Fatal::io(&target, "rename into place"))?;
        sync(&parent)?;
        Ok(target)
    }

    /// Points `current` at `generations/NAME`: a reader sees the old generation or the new one.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn switch_current(&self, name: &str) -> Result<(), Fatal> {
        let link = self
            .path
            .join(format!("{TEMPORARY}current-{}", std::process::id()));
        let current = self.path.join("current");
        std::os::unix::fs::symlink(Path::new("generations").join(name), &link)
            .map_err(Fatal::io(&link, "create"))?;
        fs::rename(&link, &current).map_err(Fatal::io(&current, "switch"))?;
        sync(&self.path)
    }

    /// Removes the oldest generations beyond `keep`, never the one that `current` names.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn prune(&self, keep: usize) -> Result<(), Fatal> {
        let folder = self.path.join("generations");
        let current = fs::read_link(self.path.join("current")).unwrap_or_default();
        let mut numbered = Vec::new();
        for entry in fs::read_dir(&folder).map_err(Fatal::io(&folder, "read"))? {
            let name = entry.map_err(Fatal::io(&folder, "read"))?.file_name();
            let number = name.to_str().and_then(|n| n.parse::<u64>().ok());
            if let Some(number) = number
                && current.file_name() != Some(&name)
            {
                numbered.push((number, name));
            }
        }
        numbered.sort_unstable();
        let surplus = (numbered.len() + 1).saturating_sub(keep);
        for (_, name) in numbered.drain(..surplus.min(numbered.len())) {
            // Out of sight in one step, so that no reader finds half of it.
            let aside = folder.join(format!("{TEMPORARY}pruned"));
            let path = folder.join(name);
            fs::rename(&path, &aside).map_err(Fatal::io(&path, "remove"))?;
            remove(&aside)?;
        }
        Ok(())
    }
}
