//! Which generation is meant: its number, and its manifest's digest.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::read;

/// A generation, told from another of its number in an output folder that was begun anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GenerationId {
    /// Its number.
    pub(crate) number: u64,
    /// Of its manifest.
    pub(crate) digest: String,
}

impl GenerationId {
    /// Of a generation in an output folder; `None` where it is gone.
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
