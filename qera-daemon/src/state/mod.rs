//! The state folder: what a run leaves so that the next one continues from it.
//!
//! ```text
//! STATE/.lock                 held by the running process
//! STATE/identity              which state this is, for whoever finds what was solved from it
//! STATE/sites.json            which inputs the statistics are of
//! STATE/journal               every shard that was accepted, in the order in which it counts
//! STATE/snapshots/000017/     statistics and progress of every site after some shard of the journal; two are kept
//! STATE/rounded/              W~ of each layer that was rounded under what was seen: a file a layer, never another
//! STATE/status.json           what `status` shows
//! ```
//!
//! A shard counts once. What the newest valid snapshot holds is not folded again; what the journal
//! has beyond it is folded again in the journal's order; whatever is not in the journal is new.
//! Statistics belong to the modules' names, their in_features and the mask rule; corrections and
//! evidence also belong to the checkpoint and the settings.

pub(crate) mod asked;
pub(crate) mod briefs;
pub(crate) mod damage;
pub(crate) mod fallback;
pub(crate) mod held;
pub(crate) mod journal;
pub(crate) mod progress_file;
pub(crate) mod restore;
pub(crate) mod seal;
pub(crate) mod snapshot;
pub(crate) mod statistics_file;
pub(crate) mod tensor_file;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk;
use crate::disk::clock;
use crate::disk::lock::Lock;
use crate::disk::presence::is_folder;
use crate::disk::room::at_once;
use crate::disk::{TEMPORARY, read_if_there, sync, write_synced};
use crate::error::Fatal;
use crate::host::second_moment::SecondMomentKind;
use crate::observe::status::Status;
use crate::settings::name_map::NameMap;
use crate::state::seal::{SealError, seal, unseal_record};
use crate::weights::architecture::Architectures;
use crate::weights::recording::Recording;
use crate::weights::sites::{Shares, SiteRecord, Sites};
use crate::weights::sketched::SketchRecord;

/// Version of every file here. In version 1 `sites.json` named its sites by place, and the window
/// was f32; in version 2 it did not say which modules are linear layers, and how they are named.
const VERSION: u32 = 3;
/// Version of a snapshot's index where rows came with weights. A program that reads version 3 alone
/// would take numbers of rows for their weights. Without weights no byte differs.
const VERSION_WITH_WEIGHTS: u32 = 4;
/// Version of a snapshot's index where rows came as sums. A program that reads version 4 alone
/// would take the means of such a site for means over all rows.
const VERSION_WITH_SUMS: u32 = 5;
/// And of `sites.json` and an index where inputs are sketched: what reads version 5 alone would
/// look for their R.
const VERSION_WITH_SKETCHES: u32 = 6;
/// Which rows count, in words. Statistics that were gathered by another rule are other statistics.
const MASK_RULE: &str = "rows whose mask is 0 are left out";

/// Name of the file with the state's identity.
const IDENTITY: &str = "identity";
/// Number of hexadecimal digits of an identity.
const IDENTITY_DIGITS: usize = 32;

/// A state folder, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct StateFolder {
    /// The folder's path.
    pub(crate) path: PathBuf,
    /// The state's identity, which stays whatever the folder is called and wherever it is moved.
    pub(crate) identity: String,
    _lock: Lock,
}

/// `sites.json`: which inputs the statistics are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SitesRecord {
    version: u32,
    mask_rule: String,
    /// How much of the second moment is gathered.
    pub(crate) second_moment: SecondMomentKind,
    /// Whether a checkpoint and a selection said which sites there are. Otherwise every module that
    /// came is one.
    pub(crate) selected: bool,
    /// What is known of the model that the rows were recorded in.
    pub(crate) recording: Recording,
    /// What the shards declared of shared inputs.
    pub(crate) shares: Shares,
    /// The model that corrections and evidence belong to.
    #[serde(flatten)]
    pub(crate) model: SolvedModel,
    /// Bytes for rows held out and kept aside, of all sites together; `None` in a state from before
    /// there was this bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) window_memory: Option<u64>,
    /// Of which E sketches are, where inputs have sketches in the place of R.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sketch: Option<SketchRecord>,
    /// The record of each site.
    pub(crate) sites: Vec<SiteRecord>,
}

/// Fingerprints of the model that corrections and evidence belong to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SolvedModel {
    /// Fingerprint of the checkpoint; `None` where no checkpoint has come yet.
    #[serde(default)]
    pub(crate) checkpoint: Option<String>,
    /// Fingerprint of W~, where the user gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quantized: Option<String>,
}

impl SitesRecord {
    /// The record of these sites.
    #[must_use]
    pub(crate) fn new(sites: &Sites, recording: &Recording) -> Self {
        Self {
            version: match sites.sketch {
                Some(_) => VERSION_WITH_SKETCHES,
                None => VERSION,
            },
            mask_rule: MASK_RULE.into(),
            second_moment: sites.second_moment(),
            selected: sites.sites.iter().any(|site| !site.layers.is_empty()),
            recording: recording.clone(),
            shares: sites.shares().clone(),
            model: SolvedModel::default(),
            window_memory: None,
            sketch: sites.sketch.clone(),
            sites: sites.sites.iter().map(SiteRecord::of).collect(),
        }
    }

    /// The same record with the model that corrections and evidence belong to.
    #[must_use]
    pub(crate) fn with_model(self, model: SolvedModel) -> Self {
        Self { model, ..self }
    }

    /// The same record with the memory for rows held out and kept aside.
    #[must_use]
    pub(crate) fn within(self, window_memory: u64) -> Self {
        Self {
            window_memory: Some(window_memory),
            ..self
        }
    }

    /// The record of what was gathered without a checkpoint, under a checkpoint's names.
    #[must_use]
    pub(crate) fn named_by(&self, names: NameMap, known: &Architectures) -> Self {
        let sites: Vec<_> = self.sites.iter().map(|of| of.renamed(&names)).collect();
        let mut shares = self.shares.renamed(&names);
        // Each site has its own rows; the architecture joins those of which only one was gathered.
        for site in &sites {
            let input = known.input_of(&site.name);
            let same = |of: &&SiteRecord| input.is_some() && known.input_of(&of.name) == input;
            if sites.iter().filter(same).count() > 1 {
                shares.keep_apart(&site.name);
            }
        }
        Self {
            shares,
            sites,
            recording: self.recording.named_by(names),
            ..self.clone()
        }
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`SitesError`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SitesError> {
        let record: Self = match unseal_record(bytes, VERSION..=VERSION) {
            Err(SealError::Version { found, .. }) if found == VERSION_WITH_SKETCHES => {
                unseal_record(bytes, found..=found)?
            }
            record => record?,
        };
        if record.mask_rule != MASK_RULE {
            return Err(SitesError::MaskRule(record.mask_rule));
        }
        match &record.sketch {
            Some(sketch) if sketch.rows < 2 => Err(SitesError::SketchRows(sketch.rows)),
            _ => Ok(record),
        }
    }
}

/// Why `sites.json` is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SitesError {
    /// The record is damaged, or of another version.
    #[error("{0}")]
    Sealed(#[from] SealError),
    /// The statistics were gathered by another mask rule.
    #[error("was gathered by the rule \"{0}\", this program's is \"{MASK_RULE}\"")]
    MaskRule(String),
    /// Sketches of this size keep no row.
    #[error("has sketches of size {0}, of which the last row is never kept")]
    SketchRows(usize),
}

impl StateFolder {
    /// Creates the folder where it is missing, locks it, and removes what a killed run left half
    /// done.
    ///
    /// # Errors
    /// [`Fatal::Locked`] when another process holds it, [`Fatal::Io`] with the path otherwise.
    pub(crate) fn open(path: &Path) -> Result<Self, Fatal> {
        if is_folder(&path.join("generations"))? {
            return Err(Fatal::StateRefused {
                path: path.to_path_buf(),
                reason: format!(
                    "is an output folder; its state is {}",
                    path.join("state").display()
                ),
            });
        }
        disk::create_folders(&path.join("snapshots"))?;
        let path = disk::resolve(path).map_err(Fatal::io(path, "resolve"))?;
        let snapshots = path.join("snapshots");
        disk::make_private(&snapshots).map_err(Fatal::io(&snapshots, "close to others"))?;
        // A killed run may have made the folder, or put a snapshot in place, without making that
        // durable.
        path.parent().into_iter().try_for_each(sync)?;
        sync(&path)?;
        sync(&snapshots)?;
        let lock = Lock::take(&path.join(".lock"))?;
        for folder in [&path, &path.join("snapshots")] {
            disk::remove_unfinished(folder)?;
        }
        let known = read_identity(&path)?;
        let folder = Self {
            identity: known.clone().unwrap_or_else(|| new_identity(&path)),
            path,
            _lock: lock,
        };
        if known.is_none() {
            folder.replace(IDENTITY, &folder.identity)?;
            sync(&folder.path)?;
        }
        Ok(folder)
    }

    /// Writes `sites.json`, in one step.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn save_sites(&self, record: &SitesRecord) -> Result<(), Fatal> {
        self.replace("sites.json", &seal(record))?;
        sync(&self.path)
    }

    /// Replaces `status.json`.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    pub(crate) fn save_status(&self, status: &Status) -> Result<(), Fatal> {
        let text = serde_json::to_string_pretty(status).unwrap_or_default();
        // No thread waits for this, and it may be what says that others wait.
        at_once(|| self.replace("status.json", &text))
    }

    /// Replaces a small file in one step; what it held is there until the new content is.
    ///
    /// # Errors
    /// [`Fatal::Io`].
    fn replace(&self, name: &str, text: &str) -> Result<(), Fatal> {
        let unfinished = self.path.join(format!("{TEMPORARY}{name}"));
        write_synced(&unfinished, text.as_bytes())?;
        let target = self.path.join(name);
        disk::rename(&unfinished, &target).map_err(Fatal::io(&target, "rename into place"))
    }
}

/// Reads the identity of the state in a folder; `None` where no program has named it.
///
/// # Errors
/// [`Fatal::Io`].
pub(crate) fn read_identity(state: &Path) -> Result<Option<String>, Fatal> {
    let bytes = read_if_there(&state.join(IDENTITY))?.unwrap_or_default();
    let said = String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok((!said.is_empty()).then_some(said))
}

/// Makes an identity that no other state has.
fn new_identity(state: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    // Where the system gives no random number, place, process and time have to do.
    hasher.update(&disk::unique_number());
    let here = format!(
        "{} {} {:?}",
        state.display(),
        std::process::id(),
        clock::now()
    );
    hasher.update(here.as_bytes());
    hasher.finalize().to_hex()[..IDENTITY_DIGITS].to_owned()
}

/// Reads `sites.json`; `None` where no shard was accepted yet, so that nothing is fixed.
///
/// # Errors
/// [`Fatal::StateRefused`] for a file that is damaged, of another version, or gathered by another
/// mask rule.
pub(crate) fn read_sites(state: &Path) -> Result<Option<SitesRecord>, Fatal> {
    let path = state.join("sites.json");
    let journal = read_if_there(&state.join("journal"))?;
    if journal.unwrap_or_default().is_empty() && snapshot::list(state)?.is_empty() {
        return Ok(None);
    }
    let Some(bytes) = read_if_there(&path)? else {
        return Ok(None);
    };
    SitesRecord::parse(&bytes)
        .map(Some)
        .map_err(|error| Fatal::StateRefused {
            path,
            reason: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_other_versions_are_refused_by_name() {
        // As version 1 wrote it.
        let before = seal(&serde_json::json!({
            "version": 1,
            "mask_rule": MASK_RULE,
            "keeps_r": true,
            "selected": true,
            "shares": {},
            "sites": [["model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj", 64]],
        }));
        let error = SitesRecord::parse(before.as_bytes())
            .unwrap_err()
            .to_string();
        for said in ["version 1", "reads version 3", "choose another --state"] {
            assert!(error.contains(said), "{error}");
        }
        // A record in today's form is refused as well when its version is another.
        let record = SitesRecord {
            version: 4,
            ..SitesRecord::new(
                &Sites::saved(&[], &Shares::default(), SecondMomentKind::Packed),
                &Recording::default(),
            )
        };
        let error = SitesRecord::parse(seal(&record).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("version 4"), "{error}");
    }

    #[test]
    fn a_record_reads_back_and_its_damage_is_seen() {
        let saved = [SiteRecord {
            key: "a".into(),
            name: "b".into(),
            in_features: 7,
            sketched: Vec::new(),
        }];
        let record = SitesRecord::new(
            &Sites::saved(&saved, &Shares::default(), SecondMomentKind::Diagonal),
            &Recording::default(),
        );
        let line = seal(&record) + "\n";
        assert_eq!(SitesRecord::parse(line.as_bytes()).unwrap(), record);
        let error = SitesRecord::parse(&line.as_bytes()[1..]).unwrap_err();
        assert_eq!(error.to_string(), "is damaged");
        let other = SitesRecord {
            mask_rule: "all rows".into(),
            ..record
        };
        let error = SitesRecord::parse(seal(&other).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("\"all rows\""), "{error}");
    }

    #[test]
    fn sketches_that_keep_no_row_are_refused() {
        let nothing = Sites::saved(&[], &Shares::default(), SecondMomentKind::Diagonal);
        let record = SitesRecord::new(&nothing, &Recording::default());
        let read = |rows: usize| {
            let mut record = serde_json::to_value(&record).unwrap();
            record["version"] = VERSION_WITH_SKETCHES.into();
            let of = serde_json::json!({"rows": rows, "checkpoint": "0", "quantizer": "mxint3"});
            record["sketch"] = of;
            SitesRecord::parse(seal(&record).as_bytes())
        };
        assert_eq!(read(2).unwrap().sketch.unwrap().rows, 2);
        for rows in [0, 1] {
            assert!(matches!(read(rows), Err(SitesError::SketchRows(found)) if found == rows));
        }
    }
}
