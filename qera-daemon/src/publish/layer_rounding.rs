//! How W~ of a layer was made, as the manifest has it, where that took R.

use serde::Serialize;

use crate::settings::rounding::Rounding;
use crate::weights::frozen::record::{MeasuredRounding, RoundingRecord};

/// W~ of a layer.
#[derive(Debug, Serialize)]
pub(crate) struct LayerRounding {
    /// How; nearest where too few rows had come when the base was written.
    name: Rounding,
    /// Rank of the adapter that it knows; 0 where it knows none.
    rank: usize,
    /// a, as it was used.
    shrinkage: f64,
    /// b, where it knows the adapter.
    base_share: Option<f64>,
    /// lambda over the mean of diag(R_a).
    damping: f64,
    /// Rows that R held.
    rows: u64,
    /// Number of the journal's last shard in it.
    journal_position: u64,
    /// Blocks of rows that were left out of it, to be scored.
    blocks_left_out: usize,
    /// What it was worth then, over the output's power; null without rows.
    error: Option<MeasuredRounding>,
    /// BLAKE3 of codes and scales.
    digest: String,
}

impl LayerRounding {
    /// What is said of a W~.
    #[must_use]
    pub(crate) fn new(record: RoundingRecord) -> Self {
        Self {
            name: record.rounding,
            rank: record.rank,
            shrinkage: record.shrinkage,
            base_share: record.base_share,
            damping: record.damping,
            rows: record.rows,
            journal_position: record.journal_position,
            blocks_left_out: record.left_out.len(),
            error: record.measured,
            digest: record.digest,
        }
    }
}
