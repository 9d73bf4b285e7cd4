//! The generations of an output folder, read while another process may publish there.

use std::path::{Path, PathBuf};

use crate::disk;
use crate::disk::presence::{is_folder, target_of};
use crate::disk::read_if_there;
use crate::error::Fatal;
use crate::publish::manifest_seal::{MANIFEST, ManifestSeal, seal_of};
use crate::publish::out_folder::number_of;
use crate::report::generation::ReportedGeneration;

/// The generations of an output folder.
#[derive(Debug)]
pub(crate) struct ReportedFolder {
    /// The generation that `current` names.
    pub(crate) current: ReportedGeneration,
    /// Other generations that can be compared with it, the oldest first.
    pub(crate) earlier: Vec<ReportedGeneration>,
    /// Generations that are not shown.
    pub(crate) left_out: Vec<LeftOutGeneration>,
}

/// A generation that a report does not show.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeftOutGeneration {
    /// The generation's number.
    pub(crate) number: u64,
    /// The reason.
    pub(crate) why: &'static str,
}

/// A manifest, and whether it is to be believed.
enum ReadManifest {
    Whole(Box<ReportedGeneration>),
    Damaged,
}

impl ReportedFolder {
    /// Reads the folder without its lock, because a daemon may be publishing there. A generation
    /// that is pruned meanwhile does not count.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] where there is no generation, or the current one's manifest is
    /// damaged; [`Fatal::Io`] for a file that the disk does not give.
    pub(crate) fn read(out: &Path) -> Result<Self, Fatal> {
        let refuse = |path: PathBuf, reason: &str| Fatal::StateRefused {
            path,
            reason: reason.into(),
        };
        let link = out.join("current");
        let number = target_of(&link)?.and_then(|of| number_of(&of));
        let found = manifest(&link, number)?;
        let current = match found {
            Some(ReadManifest::Whole(current)) => *current,
            Some(ReadManifest::Damaged) => {
                let reason = "is damaged: it is not what was written; the next run publishes anew";
                return Err(refuse(link.join(MANIFEST), reason));
            }
            None => {
                let reason =
                    "holds no generation: no run has published here, or --out is another folder";
                return Err(refuse(out.to_path_buf(), reason));
            }
        };
        let mut folder = Self {
            current,
            earlier: Vec::new(),
            left_out: Vec::new(),
        };
        folder.read_others(&out.join("generations"))?;
        Ok(folder)
    }

    fn read_others(&mut self, generations: &Path) -> Result<(), Fatal> {
        let paths = is_folder(generations)?.then(|| disk::list(generations));
        let paths = paths.transpose().map_err(Fatal::io(generations, "read"))?;
        let mut numbered: Vec<(u64, PathBuf)> = paths
            .unwrap_or_default()
            .into_iter()
            .filter_map(|path| Some((number_of(&path)?, path)))
            .filter(|(number, _)| Some(*number) != self.current.generation)
            .collect();
        numbered.sort();
        for (number, path) in numbered {
            let why = match manifest(&path, Some(number))? {
                None => continue,
                Some(ReadManifest::Damaged) => "its manifest is damaged",
                Some(ReadManifest::Whole(of)) => match self.cannot_be_compared(&of) {
                    Some(why) => why,
                    None => {
                        self.earlier.push(*of);
                        continue;
                    }
                },
            };
            self.left_out.push(LeftOutGeneration { number, why });
        }
        Ok(())
    }

    /// Why a generation's figures cannot stand beside the current one's; `None` where they can.
    fn cannot_be_compared(&self, of: &ReportedGeneration) -> Option<&'static str> {
        let current = &self.current;
        if of.fingerprints.checkpoint != current.fingerprints.checkpoint {
            return Some("of other weights");
        }
        if of.fingerprints.settings != current.fingerprints.settings {
            return Some("of other settings");
        }
        (of.state != current.state).then_some("of another state")
    }

    /// All generations that are shown, the oldest first.
    pub(crate) fn generations(&self) -> Vec<&ReportedGeneration> {
        let mut all: Vec<_> = self.earlier.iter().chain([&self.current]).collect();
        all.sort_by_key(|of| of.generation);
        all
    }
}

/// The manifest in a generation's folder; `None` where there is none.
fn manifest(folder: &Path, number: Option<u64>) -> Result<Option<ReadManifest>, Fatal> {
    let Some(bytes) = read_if_there(&folder.join(MANIFEST))? else {
        return Ok(None);
    };
    if seal_of(&bytes) == ManifestSeal::Broken {
        return Ok(Some(ReadManifest::Damaged));
    }
    let read = serde_json::from_slice::<ReportedGeneration>(&bytes).ok();
    Ok(Some(read.map_or(ReadManifest::Damaged, |mut of| {
        of.generation = of.generation.or(number);
        ReadManifest::Whole(Box::new(of))
    })))
}
