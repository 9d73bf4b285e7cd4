//! Every selected weight is read once before a row is folded: for its fingerprint, and to find what
//! is NaN or infinite. What was found is kept, since layers may be selected more than once while a
//! run waits for its first shard.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::weights::checkpoint::Checkpoint;
use crate::weights::layers::{Examination, Layer};

/// What was found, by the name of the layer.
#[derive(Debug, Default)]
pub(crate) struct Examinations(Mutex<BTreeMap<String, Examination>>);

impl Examinations {
    /// What there is to find in a layer's weight.
    #[must_use]
    pub(crate) fn of(&self, checkpoint: &Checkpoint, layer: &Layer) -> Examination {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *found
            .entry(layer.name.clone())
            .or_insert_with(|| layer.examine(checkpoint))
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
