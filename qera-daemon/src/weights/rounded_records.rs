//! What is known of W~ that were made before, without reading them: for the plan, which locks
//! nothing and changes nothing.

use std::path::PathBuf;

use crate::weights::Weights;
use crate::weights::frozen::file::{path_of, record_of};
use crate::weights::frozen::marker;
use crate::weights::frozen::record::RoundingRecord;

impl Weights {
    /// How each layer was rounded, by the first of these folders that has it; none of what is
    /// damaged or does not fit, which a run refuses.
    #[must_use]
    pub(crate) fn rounded_in(&self, folders: &[PathBuf]) -> Vec<Option<RoundingRecord>> {
        let whole = folders
            .iter()
            .map(|of| marker::whole(of).unwrap_or_default());
        let whole: Vec<_> = whole.collect();
        let record = |layer: usize| {
            let name = &self.layers()[layer].name;
            let mut having = folders.iter().zip(&whole);
            having.find_map(|(folder, whole)| {
                let path = whole.contains(name).then(|| path_of(folder, name))?;
                record_of(&path, self.expected(layer))
            })
        };
        (0..self.layers().len()).map(record).collect()
    }
}
