//! Identifies a generation by its number and the digest of its manifest.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::read;

/// A generation's identity. It differs from that of a generation with the same number in an output
/// folder that was begun anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GenerationId {
    /// The generation's number.
    pub(crate) number: u64,
    /// Digest of its manifest.
    pub(crate) digest: String,
}

impl GenerationId {
    /// The identity of a generation in an output folder; `None` where it is gone.
    #[must_use]
    pub(crate) fn of(out: &Path, number: u64) -> Option<Self> {
        let manifest = format!("generations/{number:06}/qera_manifest.json");
        let bytes = read(&out.join(manifest)).ok()?;
        Some(Self {
            number,
            digest: blake3::hash(&bytes).to_hex()[..32].to_owned(),
        })
    }
}
