//! Reads every selected weight once before a row is folded: for its fingerprint, and to find NaN
//! and infinity. Where W~ was given, both are read once to be compared. The results are kept, since
//! layers may be selected more than once while a run waits for its first shard.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::error::Fatal;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::given::{Comparing, Found, GivenModel};
use crate::weights::layers::{Examination, Layer};

/// What was found, by the layer's name.
#[derive(Debug, Default)]
pub(crate) struct Examinations {
    weights: Mutex<BTreeMap<String, Examination>>,
    given: Mutex<BTreeMap<String, Found>>,
}

impl Examinations {
    /// The examination of a layer's weight.
    #[must_use]
    pub(crate) fn of(&self, checkpoint: &Checkpoint, layer: &Layer) -> Examination {
        let mut found = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        *found
            .entry(layer.name.clone())
            .or_insert_with(|| layer.examine(checkpoint))
    }

    /// The given W~ of a layer, compared with W.
    ///
    /// # Errors
    /// The layer cannot be read, as for [`GivenModel::find`].
    pub(crate) fn given(
        &self,
        checkpoint: &Checkpoint,
        layer: &Layer,
        given: &GivenModel,
        comparing: Comparing<'_>,
    ) -> Result<Found, Fatal> {
        let mut known = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&layer.name) {
            return Ok(found.clone());
        }
        let found = given.find(layer, || layer.decode(checkpoint), comparing)?;
        known.insert(layer.name.clone(), found.clone());
        Ok(found)
    }

    /// BLAKE3 over name, type, shape, orientation and the BLAKE3 of the bytes of one layer.
    #[must_use]
    pub(crate) fn fingerprint_of(&self, checkpoint: &Checkpoint, layer: &Layer) -> String {
        let Examination { bytes, .. } = self.of(checkpoint, layer);
        let mut hasher = blake3::Hasher::new();
        hasher.update(layer.described().as_bytes());
        hasher.update(&[u8::from(layer.transposed)]);
        hasher.update(bytes.as_bytes());
        format!("blake3:{}", hasher.finalize().to_hex())
    }

    /// BLAKE3 over name, type, shape and the BLAKE3 of the bytes of these layers, in their order.
    #[must_use]
    pub(crate) fn fingerprint(&self, checkpoint: &Checkpoint, layers: &[Layer]) -> String {
        let mut hasher = blake3::Hasher::new();
        for layer in layers {
            let Examination { bytes, .. } = self.of(checkpoint, layer);
            hasher.update(layer.described().as_bytes());
            hasher.update(bytes.as_bytes());
        }
        format!("blake3:{}", hasher.finalize().to_hex())
    }
}
