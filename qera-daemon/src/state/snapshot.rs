//! Snapshots: the statistics and progress of every site after the same shard of the journal,
//! written beside their place and renamed in.
//!
//! The index names each file with its BLAKE3, and is sealed itself. Two snapshots are kept, so that
//! one that rots on disk leaves the one before.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::calibrate::site::SiteStatistics;
use crate::disk;
use crate::disk::presence::exists;
use crate::disk::{TEMPORARY, remove, sync, write_private_synced};
use crate::error::Fatal;
use crate::judge::progress::SiteProgress;
use crate::state::damage::{Damage, Unread};
use crate::state::journal::Gathered;
use crate::state::progress_file::write_progress;
use crate::state::seal::{SealError, seal, unseal_record};
use crate::state::statistics_file::write_statistics;
use crate::state::{
    StateFolder, VERSION, VERSION_WITH_SKETCHES, VERSION_WITH_SUMS, VERSION_WITH_WEIGHTS,
};

/// Number of snapshots that are kept.
const KEPT: usize = 2;
const INDEX: &str = "index.json";

/// The index of a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    /// The shards that the snapshot holds.
    pub(crate) gathered: Gathered,
    /// Fingerprint of checkpoint and settings that the progress belongs to.
    pub(crate) solved_for: Option<String>,
    /// Whether the sites have the names of the checkpoint; otherwise they have those of the shards.
    pub(crate) named: bool,
    /// The sites of the snapshot.
    pub(crate) sites: Vec<SavedSite>,
}

impl Index {
    /// An index of these sites.
    #[must_use]
    pub(crate) fn new(
        gathered: Gathered,
        solved_for: Option<String>,
        named: bool,
        sites: Vec<SavedSite>,
    ) -> Self {
        Self {
            version: if sites.iter().any(|site| site.sketched) {
                VERSION_WITH_SKETCHES
            } else if sites.iter().any(|site| site.summed) {
                VERSION_WITH_SUMS
            } else if sites.iter().any(|site| site.weighted) {
                VERSION_WITH_WEIGHTS
            } else {
                VERSION
            },
            gathered,
            solved_for,
            named,
            sites,
        }
    }

    /// Reads an index.
    ///
    /// # Errors
    /// [`SealError`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SealError> {
        unseal_record(bytes, VERSION..=VERSION_WITH_SKETCHES)
    }

    /// Reads the index of a snapshot.
    ///
    /// # Errors
    /// [`Unread::Damaged`] for one that is missing or is not what was written,
    /// [`Unread::NoAnswer`], and [`Fatal::StateRefused`] for one of another version.
    pub(crate) fn read(snapshot: &Path) -> Result<Self, Unread> {
        let path = snapshot.join(INDEX);
        let bytes = disk::read(&path).map_err(|e| Unread::unopened(&path, e))?;
        match Self::parse(&bytes) {
            Ok(index) => Ok(index),
            Err(SealError::Damaged) => {
                Err(Damage("its index is damaged: it is not what was written".into()).into())
            }
            Err(error @ SealError::Version { .. }) => Err(Unread::Refused(Fatal::StateRefused {
                path,
                reason: error.to_string(),
            })),
        }
    }
}

/// A site's files in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedSite {
    /// The site's key.
    pub(crate) key: String,
    /// The number in the names of the site's files.
    pub(crate) number: usize,
    /// BLAKE3 of the statistics' file.
    pub(crate) statistics: String,
    /// BLAKE3 of the progress' file, where layers are solved.
    pub(crate) progress: Option<String>,
    /// Whether some of its rows came with weights.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) weighted: bool,
    /// Whether some of its rows came as sums.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) summed: bool,
    /// Whether its output errors are sketched in the place of R.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) sketched: bool,
}

impl SavedSite {
    pub(crate) fn statistics_file(&self, snapshot: &Path) -> PathBuf {
        statistics_file(snapshot, self.number)
    }

    pub(crate) fn progress_file(&self, snapshot: &Path) -> PathBuf {
        progress_file(snapshot, self.number)
    }
}

fn statistics_file(snapshot: &Path, number: usize) -> PathBuf {
    snapshot.join(format!("{number:05}.statistics.safetensors"))
}

fn progress_file(snapshot: &Path, number: usize) -> PathBuf {
    snapshot.join(format!("{number:05}.progress.safetensors"))
}

/// A site that is to be saved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SiteToSave<'a> {
    /// The number in the names of the site's files.
    pub(crate) number: usize,
    /// The site's key.
    pub(crate) key: &'a str,
    /// The site's statistics.
    pub(crate) statistics: &'a SiteStatistics,
    /// The site's progress, where layers are solved.
    pub(crate) progress: Option<&'a SiteProgress>,
}

/// Writes one site into a snapshot that is being made.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn write_site(folder: &Path, site: SiteToSave<'_>) -> Result<SavedSite, Fatal> {
    let SiteToSave {
        number,
        key,
        statistics,
        progress,
    } = site;
    let path = statistics_file(folder, number);
    let hash = write_statistics(&path, key, statistics)?;
    let progress = progress
        .map(|p| write_progress(&progress_file(folder, number), key, statistics, p))
        .transpose()?;
    Ok(SavedSite {
        key: key.into(),
        number,
        statistics: hash.to_hex().to_string(),
        progress: progress.map(|hash| hash.to_hex().to_string()),
        weighted: statistics.extent().squares.is_some(),
        summed: !statistics.summed.is_none(),
        sketched: statistics.outputs.is_some(),
    })
}

/// A snapshot on disk.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Snapshot {
    /// The number of the snapshot; the newest has the largest.
    pub(crate) number: u64,
    /// The folder of the snapshot.
    pub(crate) path: PathBuf,
}

/// The snapshots of a state folder, newest first.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn list(state: &Path) -> Result<Vec<Snapshot>, Fatal> {
    let folder = state.join("snapshots");
    let mut found = Vec::new();
    let paths = match disk::list(&folder) {
        Ok(paths) => paths,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(Fatal::io(&folder, "read")(e)),
    };
    for path in paths {
        let number = path.file_name().and_then(|n| n.to_str());
        if let Some(number) = number.and_then(|n| n.parse().ok()) {
            found.push(Snapshot { number, path });
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

impl StateFolder {
    /// Refuses a state whose newest snapshot is of another version, before anything is written to
    /// it.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] naming the version; [`Fatal::Io`].
    pub(crate) fn refuse_other_versions(&self) -> Result<(), Fatal> {
        let snapshots = list(&self.path)?;
        match snapshots.first().map(|newest| Index::read(&newest.path)) {
            Some(Err(Unread::Refused(fatal))) => Err(fatal),
            // Damage and files that cannot be read are told where the state is restored.
            _ => Ok(()),
        }
    }

    /// Makes an empty folder for the files of the next snapshot.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn begin_snapshot(&self) -> Result<PathBuf, Fatal> {
        let unfinished = self.path.join("snapshots").join(format!("{TEMPORARY}new"));
        if exists(&unfinished)? {
            remove(&unfinished)?;
        }
        disk::create_private_folder(&unfinished).map_err(Fatal::io(&unfinished, "create"))?;
        Ok(unfinished)
    }

    /// Puts a finished snapshot in place. When this returns, the shards that it holds need not
    /// exist any more.
    ///
    /// # Errors
    /// [`Fatal::Io`]; the snapshots before are still there then.
    pub(crate) fn commit_snapshot(&self, unfinished: &Path, index: &Index) -> Result<(), Fatal> {
        write_private_synced(&unfinished.join(INDEX), seal(index).as_bytes())?;
        sync(unfinished)?;
        let known = list(&self.path)?;
        let number = known.first().map_or(1, |newest| newest.number + 1);
        let folder = self.path.join("snapshots");
        let target = folder.join(format!("{number:06}"));
        disk::rename(unfinished, &target).map_err(Fatal::io(&target, "rename into place"))?;
        sync(&folder)
    }

    /// Removes all snapshots but the newest two, also those that an earlier call could not remove.
    ///
    /// # Errors
    /// [`Fatal::Io`] for the first that cannot be removed; the others are gone then.
    pub(crate) fn remove_old_snapshots(&self) -> Result<(), Fatal> {
        let known = list(&self.path)?;
        let old = known.iter().skip(KEPT);
        old.map(|old| remove(&old.path)).fold(Ok(()), Result::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_of_another_version_is_refused_a_damaged_one_is_damage_an_unreadable_one_neither() {
        let folder = std::env::temp_dir().join(format!("qera-index-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(INDEX);
        let index = Index::new(Gathered::default(), None, true, Vec::new());
        let whole = seal(&index) + "\n";
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(Index::read(&folder).unwrap().gathered, index.gathered);

        std::fs::write(
            &path,
            seal(&Index {
                version: 1,
                ..index
            }),
        )
        .unwrap();
        let Err(Unread::Refused(fatal)) = Index::read(&folder) else {
            panic!("version 1 is no damage");
        };
        let said = fatal.to_string();
        for part in ["index.json", "version 1", "reads versions 3 to 6"] {
            assert!(said.contains(part), "{said}");
        }
        std::fs::write(&path, &whole[1..]).unwrap();
        assert!(matches!(Index::read(&folder), Err(Unread::Damaged(_))));
        // A file that is there and cannot be read is no damage.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let Err(Unread::NoAnswer(no_answer)) = Index::read(&folder) else {
            panic!("nothing is known of what cannot be read");
        };
        assert!(no_answer.to_string().contains("index.json"), "{no_answer}");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(Index::read(&folder), Err(Unread::Damaged(_))));
    }
}
