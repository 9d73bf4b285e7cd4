//! Where W~ that were rounded are kept, and which of those that are there serve.

use std::path::{Path, PathBuf};

use crate::error::Fatal;
use crate::settings::rounding::Rounding;
use crate::weights::Weights;
use crate::weights::frozen::file::{path_of, read, refuse};
use crate::weights::frozen::record::{AskedRounding, RoundingRecord, Unfit};
use crate::weights::frozen::{Frozen, marker};

/// The folder of a state, or of what `solve` wrote, that W~ are kept in.
pub(crate) const FOLDER: &str = "rounded";

/// Where W~ are looked for, the first folder first, and where new ones go.
#[derive(Debug, Clone)]
pub(crate) struct RoundedFolders {
    /// Where they are looked for.
    pub(crate) read: Vec<PathBuf>,
    /// Where new ones go.
    pub(crate) write: PathBuf,
    /// Whether W~ of other weights are as none: corrections and evidence of those begin anew too.
    pub(crate) new_checkpoint: bool,
}

impl RoundedFolders {
    /// Those of a run: its state alone.
    #[must_use]
    pub(crate) fn of_run(state: &Path, new_checkpoint: bool) -> Self {
        let folder = state.join(FOLDER);
        Self {
            read: vec![folder.clone()],
            write: folder,
            new_checkpoint,
        }
    }

    /// Those of `solve`, which only reads the state: what an earlier one left in this output folder
    /// comes first, and nothing is read where all is to be made again.
    #[must_use]
    pub(crate) fn of_solve(state: &Path, out: &Path, again: bool, new_checkpoint: bool) -> Self {
        let own = out.join(FOLDER);
        Self {
            read: if again {
                Vec::new()
            } else {
                vec![own.clone(), state.join(FOLDER)]
            },
            write: own,
            new_checkpoint,
        }
    }
}

impl Weights {
    /// Keeps W~ in a run's state from here on, where it depends on rows.
    ///
    /// # Errors
    /// As for [`keep_rounded_in`](Self::keep_rounded_in); [`Fatal::StateRefused`] where it does
    /// not, and the state has some.
    pub(crate) fn keep_rounded_in_state(
        &self,
        state: &Path,
        new_checkpoint: bool,
    ) -> Result<(), Fatal> {
        if self.rounding().uses_rows() {
            return self.keep_rounded_in(&RoundedFolders::of_run(state, new_checkpoint));
        }
        refuse_rounded(state, self.rounding())
    }

    /// Keeps W~ in a folder from here on, and takes those that are there. What a killed run left
    /// half done there is removed, and all of it where nothing of it is to be read.
    ///
    /// # Errors
    /// [`Fatal::StateRefused`] for a file that is missing, damaged, or was made from other weights
    /// or with other settings; [`Fatal::Io`].
    pub(crate) fn keep_rounded_in(&self, folders: &RoundedFolders) -> Result<(), Fatal> {
        let frozen = Frozen::in_folder(&folders.write, self.layers().len())?;
        if folders.read.contains(&folders.write) {
            marker::remove_leftovers(&folders.write)?;
        } else {
            marker::clear(&folders.write)?;
        }
        let whole = folders.read.iter().map(|folder| marker::whole(folder));
        let whole = whole.collect::<Result<Vec<_>, _>>()?;
        for layer in 0..self.layers().len() {
            let name = &self.layers()[layer].name;
            let folders_of = folders.read.iter().zip(&whole);
            for (folder, _) in folders_of.filter(|(_, whole)| whole.contains(name)) {
                let path = path_of(folder, name);
                let Some(found) = self.read_rounded(layer, &path, folders.new_checkpoint)? else {
                    continue;
                };
                frozen.take(layer, found, path);
                break;
            }
        }
        let _ = self.frozen.set(frozen);
        Ok(())
    }

    /// What a layer's file says of it, where it serves.
    fn read_rounded(
        &self,
        layer: usize,
        path: &Path,
        new_checkpoint: bool,
    ) -> Result<Option<RoundingRecord>, Fatal> {
        let Some(found) = read(path, self.expected(layer))? else {
            return Ok(None);
        };
        let of = &self.layers()[layer];
        let own = &self.layer_fingerprints[layer];
        if found.weight != *own {
            let other = &found.weight;
            return if new_checkpoint {
                Ok(None)
            } else {
                let why = format!(
                    "was made from another weight ({other}, this checkpoint's is {own}): say --new-checkpoint"
                );
                Err(refuse(path, &of.name, &why))
            };
        }
        match self.unfit(layer, &found.record) {
            Some(why) => Err(refuse(path, &of.name, &why)),
            None => Ok(Some(found.record)),
        }
    }

    /// Why a layer's W~ that was made like this does not serve.
    pub(super) fn unfit(&self, layer: usize, made: &RoundingRecord) -> Option<Unfit> {
        made.unfit(&AskedRounding {
            settings: &self.rounding,
            grid: &self.quantizer.to_string(),
            rank: self.layers()[layer].rank,
        })
    }
}

/// Refuses a state that W~ were rounded in, for a run that rounds to nearest.
fn refuse_rounded(state: &Path, rounding: Rounding) -> Result<(), Fatal> {
    let folder = state.join(FOLDER);
    if marker::whole(&folder)?.is_empty() {
        return Ok(());
    }
    Err(Fatal::StateRefused {
        path: folder,
        reason: format!(
            "holds W~ that were rounded under what was seen, this run uses --rounding {}: choose another --state, or make that adapter by `solve`",
            rounding.name()
        ),
    })
}
