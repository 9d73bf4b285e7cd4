//! Which folders keep W~ of rounded layers, and which of the W~ in them can be used.

use std::path::{Path, PathBuf};

use crate::error::Fatal;
use crate::settings::rounding::Rounding;
use crate::weights::Weights;
use crate::weights::frozen::file::{path_of, read, refuse};
use crate::weights::frozen::record::{AskedRounding, RoundingRecord, Unfit};
use crate::weights::frozen::{Frozen, marker};

/// The subfolder of a state, or of an output folder of `solve`, that keeps W~.
pub(crate) const FOLDER: &str = "rounded";

/// The folders in which W~ is looked for, and the one for new ones.
#[derive(Debug, Clone)]
pub(crate) struct RoundedFolders {
    /// The folders in which W~ is looked for, the first one first.
    pub(crate) read: Vec<PathBuf>,
    /// The folder for new ones.
    pub(crate) write: PathBuf,
    /// Whether a W~ of other weights is ignored, as corrections and evidence of other weights are.
    pub(crate) new_checkpoint: bool,
}

impl RoundedFolders {
    /// The folders of a run: its state alone.
    #[must_use]
    pub(crate) fn of_run(state: &Path, new_checkpoint: bool) -> Self {
        let folder = state.join(FOLDER);
        Self {
            read: vec![folder.clone()],
            write: folder,
            new_checkpoint,
        }
    }

    /// The folders of `solve`, which only reads the state. W~ that an earlier `solve` left in the
    /// output folder comes first. With `again` nothing is read, and all W~ is made anew.
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
    /// Keeps W~ in a run's state from now on, if it depends on rows.
    ///
    /// # Errors
    /// Those of [`keep_rounded_in`](Self::keep_rounded_in); [`Fatal::StateRefused`] where W~ does
    /// not depend on rows and the state keeps some.
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

    /// Keeps W~ in a folder from now on, and takes over what is there. Half-done files of a killed
    /// run are removed, and all files where nothing is to be read.
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

    /// A layer's file, if its W~ can be used.
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

    /// Why a layer's W~ that was made like this cannot be used; `None` where it can.
    pub(super) fn unfit(&self, layer: usize, made: &RoundingRecord) -> Option<Unfit> {
        made.unfit(&AskedRounding {
            settings: &self.rounding,
            grid: &self.quantizer.to_string(),
            rank: self.layers()[layer].rank,
        })
    }
}

/// Refuses a state that keeps rounded W~, for a run that rounds to nearest.
fn refuse_rounded(state: &Path, rounding: Rounding) -> Result<(), Fatal> {
    let folder = state.join(FOLDER);
    if marker::whole(&folder)?.is_empty() {
        return Ok(());
    }
    Err(Fatal::StateRefused {
        path: folder,
        reason: format!(
            "holds quantized weights that were rounded by what the rows showed (--rounding feedback or projected), and this run uses --rounding {}: choose another --state, or make that adapter with `solve`",
            rounding.name()
        ),
    })
}
