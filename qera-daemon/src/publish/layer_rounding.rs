//! The manifest's field on how W~ of a layer was made, where that took R.

use serde::Serialize;

use crate::settings::rounding::Rounding;
use crate::weights::frozen::record::{MeasuredRounding, RoundingRecord};

/// How W~ of a layer was made.
#[derive(Debug, Serialize)]
pub(crate) struct LayerRounding {
    /// The rounding. It is nearest where too few rows had come when the base was written.
    name: Rounding,
    /// Rank of the adapter that W~ was rounded for; 0 where it was rounded for none.
    rank: usize,
    /// The shrinkage a that was used.
    shrinkage: f64,
    /// The base share b, where W~ was rounded for an adapter.
    base_share: Option<f64>,
    /// The damping lambda, relative to the mean of diag(R_a).
    damping: f64,
    /// Rows that R held.
    rows: u64,
    /// Number of the journal's last shard in R.
    journal_position: u64,
    /// Number of blocks of rows that were left out of R to judge W~.
    blocks_left_out: usize,
    /// The errors measured at that time, relative to the output's power; null without rows.
    error: Option<MeasuredRounding>,
    /// BLAKE3 of codes and scales.
    digest: String,
}

impl LayerRounding {
    /// The field for a W~ with this record.
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
