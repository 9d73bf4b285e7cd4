//! How much of a site came as sums over rows, and what these were without.

use serde::{Deserialize, Serialize};

use crate::host::second_moment::massive::ERROR_CONSTANT;

/// What came of a site as sums, of all that was folded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SummedPart {
    /// Rows.
    pub(crate) rows: u64,
    /// The weight of those whose sum was in f32.
    #[serde(default)]
    pub(crate) weight_in_f32: f64,
    /// Rows whose sums came without that of |x|.
    #[serde(default)]
    pub(crate) without_abs_sum: u64,
    /// And without the largest batch mean of |x|.
    #[serde(default)]
    pub(crate) without_batch_max: u64,
}

impl SummedPart {
    /// Whether no row came so.
    pub(crate) const fn is_none(&self) -> bool {
        self.rows == 0
    }

    /// How far squares of massive channels may be off, relative, in a mean over so much weight: as
    /// far as f32 sums of a channel that is always the same.
    pub(crate) fn error(&self, weight: f64) -> f64 {
        if self.weight_in_f32 > 0.0 {
            ERROR_CONSTANT * self.weight_in_f32 / weight
        } else {
            0.0
        }
    }
}
