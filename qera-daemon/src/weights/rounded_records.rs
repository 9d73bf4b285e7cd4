//! Reads the records of W~ that were made before, without their codes. This is for the plan, which
//! locks nothing and changes nothing.

use crate::weights::Weights;
use crate::weights::frozen::file::{FoundRounding, path_of, record_of};
use crate::weights::frozen::marker;
use crate::weights::frozen::record::RoundingRecord;
use crate::weights::rounded_folders::RoundedFolders;

impl Weights {
    /// How each layer was rounded, from the first of these folders that has it. `None` where a run
    /// makes W~ anew or refuses it: a damaged file, another weight, other settings.
    #[must_use]
    pub(crate) fn rounded_in(&self, folders: &RoundedFolders) -> Vec<Option<RoundingRecord>> {
        let layers = 0..self.layers().len();
        let whole: Vec<_> = folders
            .read
            .iter()
            .map(|of| marker::whole(of).unwrap_or_default())
            .collect();
        let taken = |layer: usize| {
            let name = &self.layers()[layer].name;
            for (folder, whole) in folders.read.iter().zip(&whole) {
                let path = path_of(folder, name);
                let record = whole
                    .contains(name)
                    .then(|| record_of(&path, self.expected(layer)));
                let Some(FoundRounding { weight, record }) = record.flatten() else {
                    continue;
                };
                if weight == self.layer_fingerprints[layer] {
                    return self.unfit(layer, &record).is_none().then_some(record);
                }
                if !folders.new_checkpoint {
                    return None;
                }
            }
            None
        };
        layers.map(taken).collect()
    }
}
