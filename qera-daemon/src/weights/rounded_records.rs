//! What is known of W~ that were made before, without reading them: for the plan, which locks
//! nothing and changes nothing.

use std::path::Path;

use serde::Deserialize;

use crate::disk::open_file::OpenFile;
use crate::formats::safetensors::header::Header;
use crate::weights::Weights;
use crate::weights::frozen::file::{path_of, record_of};
use crate::weights::frozen::marker;
use crate::weights::frozen::record::RoundingRecord;
use crate::weights::rounded_folders::RoundedFolders;

/// The metadata key of what is known of a W~.
const RECORD: &str = "qera.rounded";

/// Of that, which W it was made from.
#[derive(Debug, Deserialize)]
struct MadeFrom {
    weight: String,
}

impl Weights {
    /// How each layer was rounded, by the first of these folders that has it; none of what a run
    /// makes anew or refuses: what is damaged, of another weight or of other settings.
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
                let Some(record) = record.flatten() else {
                    continue;
                };
                if made_from(&path).as_ref() == Some(&self.layer_fingerprints[layer]) {
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

/// Fingerprint of the weight that a W~ was made from.
fn made_from(path: &Path) -> Option<String> {
    let file = OpenFile::open(path).ok()?;
    let header = Header::read(file.reader(), file.identity().ok()?.bytes).ok()?;
    let of: MadeFrom = serde_json::from_str(header.metadata.get(RECORD)?).ok()?;
    Some(of.weight)
}
