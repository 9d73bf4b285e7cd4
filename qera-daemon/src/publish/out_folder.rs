//! The output folder: locked while in use, generations numbered, `current` switched atomically.
//!
//! ```text
//! OUT/.lock                      held by the running process; text says by whom
//! OUT/base/                      W~ as a checkpoint (--emit-base)
//! OUT/base-compressed-tensors/   W~ packed for engines (--emit-base=compressed-tensors)
//! OUT/base-gguf/                 W~ in a GGUF (--emit-base=gguf)
//! OUT/generations/000001/        one adapter
//! OUT/current -> generations/000001
//! OUT/notified.json              what servers were told of generations (--notify)
//! OUT/on_publish.json            the generation that the user's command was run for (--on-publish)
//! OUT/rounded/                   W~ that `solve` made, where the state has none or it was told to
//! OUT/state/                     unless --state names another folder
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::disk;
use crate::disk::lock::Lock;
use crate::disk::presence::{is_in_place_of_a_link, target_of};
use crate::disk::{TEMPORARY, remove, sync};
use crate::error::Fatal;
use crate::publish::generation_files::{folder_name, is_ours};

/// The output folder, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct OutFolder {
    /// The folder's absolute path.
    pub(crate) path: PathBuf,
    _lock: Lock,
}

impl OutFolder {
    /// Creates the folder where it is missing, locks it, and removes what a killed run left half
    /// done.
    ///
    /// # Errors
    /// [`Fatal::Locked`] when another process holds it, [`Fatal::Io`] with the path otherwise.
    pub(crate) fn open(path: &Path) -> Result<Self, Fatal> {
        disk::create_folders(&path.join("generations"))?;
        let path = disk::resolve(path).map_err(Fatal::io(path, "resolve"))?;
        if let Some(parent) = path.parent() {
            sync(parent)?;
        }
        let lock = Lock::take(&path.join(".lock"))?;
        disk::remove_unfinished(&path)?;
        // What of a generation stays lies out of sight. The next publication tries again, and says
        // what it cannot remove.
        let _ = disk::remove_unfinished(&path.join("generations"));
        let out = Self { path, _lock: lock };
        out.check()?;
        Ok(out)
    }

    /// Tests writing and renaming now, which would otherwise fail after hours of solving.
    fn check(&self) -> Result<(), Fatal> {
        let current = self.path.join("current");
        if is_in_place_of_a_link(&current)? {
            let reason =
                "is no symlink; move it away, qera switches it to each new generation".into();
            return Err(Fatal::StateRefused {
                path: current,
                reason,
            });
        }
        for parent in ["", "generations"] {
            remove(&self.begin(parent)?)?;
        }
        Ok(())
    }

    /// Removes what [`begin`](Self::begin) made after a failure, so that a full disk does not stay
    /// full.
    pub(crate) fn abandon(&self, parent: &str) {
        let unfinished = self
            .path
            .join(parent)
            .join(format!("{TEMPORARY}{}", std::process::id()));
        // The failure that led here is the one to report.
        let _ = remove(&unfinished);
    }

    /// The number of the next generation: one more than the largest in the folder.
    ///
    /// # Errors
    /// [`Fatal::Io`] when the folder cannot be read.
    pub(crate) fn next_generation(&self) -> Result<u64, Fatal> {
        let last = self.numbers()?.into_iter().next_back();
        Ok(last.unwrap_or_default().saturating_add(1))
    }

    /// All numbers that are names in the folder, whether the generations are ours or not.
    ///
    /// # Errors
    /// [`Fatal::Io`] when the folder cannot be read.
    pub(crate) fn numbers(&self) -> Result<BTreeSet<u64>, Fatal> {
        let folder = self.path.join("generations");
        let paths = disk::list(&folder).map_err(Fatal::io(&folder, "read"))?;
        Ok(paths.iter().filter_map(|path| number_of(path)).collect())
    }

    /// The number of the generation that `current` names.
    ///
    /// # Errors
    /// [`Fatal::Io`]: whoever took no answer for no generation could remove the current one.
    pub(crate) fn current_generation(&self) -> Result<Option<u64>, Fatal> {
        let current = target_of(&self.path.join("current"))?;
        Ok(current.and_then(|of| number_of(&of)))
    }

    /// The folder of a generation.
    #[must_use]
    pub(crate) fn generation(&self, number: u64) -> PathBuf {
        self.path.join("generations").join(folder_name(number))
    }

    /// Makes an empty folder beside the place that it will be renamed to.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn begin(&self, parent: &str) -> Result<PathBuf, Fatal> {
        let path = self
            .path
            .join(parent)
            .join(format!("{TEMPORARY}{}", std::process::id()));
        disk::create_folders(&path)?;
        Ok(path)
    }

    /// Syncs an unfinished folder and renames it to `parent/name`.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn rename_in(
        &self,
        unfinished: &Path,
        parent: &str,
        name: &str,
    ) -> Result<PathBuf, Fatal> {
        let parent = self.path.join(parent);
        let target = parent.join(name);
        sync(unfinished)?;
        disk::rename(unfinished, &target).map_err(Fatal::io(&target, "rename into place"))?;
        sync(&parent)?;
        Ok(target)
    }

    /// Points `current` at `generations/NAME`. A reader sees the old generation or the new one.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn switch_current(&self, name: &str) -> Result<(), Fatal> {
        let link = self
            .path
            .join(format!("{TEMPORARY}current-{}", std::process::id()));
        let current = self.path.join("current");
        disk::symlink(&Path::new("generations").join(name), &link)
            .map_err(Fatal::io(&link, "create"))?;
        disk::rename(&link, &current).map_err(Fatal::io(&current, "switch"))?;
        sync(&self.path)
    }

    /// Removes the oldest generations of a state beyond the newest `keep`. The one that `current`
    /// names is never removed, nor one that is still needed; both count towards `keep`. Folders
    /// that others put there are neither counted nor touched. What an earlier call could not remove
    /// is tried again.
    ///
    /// # Errors
    /// [`Fatal::Io`] for the first that cannot be removed; the others are gone then.
    pub(crate) fn prune(&self, keep: usize, of: &Pruned<'_>) -> Result<(), Fatal> {
        let current = self.current_generation()?;
        let is_ours = |number: &u64| is_ours(&self.generation(*number), *number, of.state);
        let others = self.numbers()?.into_iter();
        let others = others.filter(|number| Some(*number) != current);
        let ours: Vec<u64> = others.filter(is_ours).collect();
        let surplus = (ours.len() + 1).saturating_sub(keep);
        let pruned = ours.iter().take(surplus);
        let pruned = pruned.filter(|number| !of.held.contains(number));
        let hidden = pruned.map(|number| self.hide(*number));
        let hidden = hidden.fold(Ok(()), Result::and);
        hidden.and(disk::remove_unfinished(&self.path.join("generations")))
    }

    /// Renames a generation out of sight in one step, so that no reader finds half of it while it
    /// is removed.
    fn hide(&self, number: u64) -> Result<(), Fatal> {
        let path = self.generation(number);
        let name = format!("{TEMPORARY}pruned-{}", folder_name(number));
        let hidden = self.path.join("generations").join(name);
        disk::rename(&path, &hidden).map_err(Fatal::io(&path, "remove"))
    }
}

/// The generations that may be removed.
#[derive(Debug)]
pub(crate) struct Pruned<'a> {
    /// The state that they were solved from.
    pub(crate) state: Option<&'a str>,
    /// Generations that somebody still needs.
    pub(crate) held: BTreeSet<u64>,
}

/// The number that is the name of a generation's folder.
pub(crate) fn number_of(generation: &Path) -> Option<u64> {
    generation.file_name()?.to_str()?.parse().ok()
}
