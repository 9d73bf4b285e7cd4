//! The state folder: what a run leaves so that the next one continues from it.
//!
//! ```text
//! STATE/.lock                 held by the running process
//! STATE/sites.json            which inputs the statistics are of
//! STATE/journal               every shard that was accepted, in the order in which it counts
//! STATE/snapshots/000017/     statistics and progress of every site after some shard of the journal; two are kept
//! STATE/status.json           what `status` shows
//! ```
//!
//! A shard counts once: what the newest valid snapshot holds is not folded again, what the journal has beyond it is folded
//! again in the journal's order, and whatever is not in the journal is new. Statistics are bound to the modules' names,
//! their in_features and the mask rule; corrections and evidence also to the checkpoint and the settings.

mod journal;
mod restore;
mod seal;
mod site_file;
mod snapshot;
mod status;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Shares, Sites};
use crate::durable::{TEMPORARY, lock, remove, sync, write_synced};
use crate::error::Stop;

pub use journal::{Gathered, Journal, Record};
pub use restore::{Expected, Restored, SiteState, check_sites, restore};
pub use snapshot::{Index, SavedSite, write_site};
pub use status::{LayerStatus, Status, Work};

/// Version of every file here.
const VERSION: u32 = 1;
/// Which rows count, in words: statistics gathered by another rule are other statistics.
const MASK_RULE: &str = "rows whose mask is 0 are left out";

/// The folder, held until dropped.
#[derive(Debug)]
pub struct StateFolder {
    /// Its path.
    pub path: PathBuf,
    _lock: File,
}

/// `sites.json`: which inputs the statistics are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SitesRecord {
    version: u32,
    mask_rule: String,
    /// Whether R is gathered.
    pub keeps_r: bool,
    /// Whether a checkpoint and a selection said which sites there are; else every module that came is one.
    pub selected: bool,
    /// What the shards declared of shared inputs.
    pub shares: Shares,
    /// (key, first member, in_features) of each site.
    pub sites: Vec<(String, String, usize)>,
}

impl SitesRecord {
    /// The record of these sites.
    #[must_use]
    pub fn new(sites: &Sites, keeps_r: bool) -> Self {
        Self {
            version: VERSION,
            mask_rule: MASK_RULE.into(),
            keeps_r,
            selected: sites.sites.iter().any(|site| !site.layers.is_empty()),
            shares: sites.shares().clone(),
            sites: sites
                .sites
                .iter()
                .map(|s| (s.key.clone(), s.name.clone(), s.in_features))
                .collect(),
        }
    }
}

impl StateFolder {
    /// Creates the folder where it is missing, locks it, and removes what a killed run left half done.
    ///
    /// # Errors
    /// [`Stop::Locked`] when another process holds it, [`Stop::Io`] with the path otherwise.
    pub fn open(path: &Path) -> Result<Self, Stop> {
        if path.join("generations").is_dir() {
            return Err(Stop::StateRefused {
                path: path.to_path_buf(),
                reason: format!(
                    "is an output folder; its state is {}",
                    path.join("state").display()
                ),
            });
        }
        fs::create_dir_all(path.join("snapshots"))
            .map_err(Stop::io(path, "create the state folder"))?;
        let path = fs::canonicalize(path).map_err(Stop::io(path, "resolve"))?;
        let lock = lock(&path.join(".lock"))?;
        for folder in [path.clone(), path.join("snapshots")] {
            for entry in fs::read_dir(&folder).map_err(Stop::io(&folder, "read"))? {
                let entry = entry.map_err(Stop::io(&folder, "read"))?;
                if entry
                    .file_name()
                    .as_encoded_bytes()
                    .starts_with(TEMPORARY.as_bytes())
                {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(Self { path, _lock: lock })
    }

    /// Writes `sites.json`, in one step.
    ///
    /// # Errors
    /// [`Stop::Io`].
    pub fn save_sites(&self, record: &SitesRecord) -> Result<(), Stop> {
        self.replace("sites.json", &seal::seal(record))?;
        sync(&self.path)
    }

    /// Replaces a small file in one step; what it held is there until the new content is.
    ///
    /// # Errors
    /// [`Stop::Io`].
    fn replace(&self, name: &str, text: &str) -> Result<(), Stop> {
        let aside = self.path.join(format!("{TEMPORARY}{name}"));
        write_synced(&aside, text.as_bytes())?;
        let target = self.path.join(name);
        fs::rename(&aside, &target).map_err(Stop::io(&target, "rename into place"))
    }
}

/// Reads `sites.json`; `None` where nothing was gathered yet.
///
/// # Errors
/// [`Stop::StateRefused`] for a file that is damaged, of another version, or gathered by another mask rule.
pub fn read_sites(state: &Path) -> Result<Option<SitesRecord>, Stop> {
    let path = state.join("sites.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Stop::io(&path, "read")(e)),
    };
    let refuse = |reason: String| Stop::StateRefused {
        path: path.clone(),
        reason,
    };
    let record: SitesRecord =
        seal::unseal(text.trim_end()).ok_or_else(|| refuse("is damaged".into()))?;
    if record.version != VERSION {
        return Err(refuse(format!(
            "has version {}, this program reads {VERSION}",
            record.version
        )));
    }
    if record.mask_rule != MASK_RULE {
        return Err(refuse(format!(
            "was gathered by the rule \"{}\", this program's is \"{MASK_RULE}\"",
            record.mask_rule
        )));
    }
    Ok(Some(record))
}
