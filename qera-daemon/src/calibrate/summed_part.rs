//! How many of a site's rows came as sums, and what these sums lacked.

use serde::{Deserialize, Serialize};

use crate::host::second_moment::massive::ERROR_CONSTANT;

/// The part of a site's rows that came as sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SummedPart {
    /// The number of rows in sums.
    pub(crate) rows: u64,
    /// The weight of rows whose sum was in f32.
    #[serde(default)]
    pub(crate) weight_in_f32: f64,
    /// The number of rows whose sums came without the sum of |x|.
    #[serde(default)]
    pub(crate) without_abs_sum: u64,
    /// The number of rows whose sums came without the largest batch mean of |x|.
    #[serde(default)]
    pub(crate) without_batch_max: u64,
}

impl SummedPart {
    /// Whether no row came in a sum.
    pub(crate) const fn is_none(&self) -> bool {
        self.rows == 0
    }

    /// The relative uncertainty of massive channels' squares in a mean over this much weight: that
    /// of f32 sums of a constant channel.
    pub(crate) fn error(&self, weight: f64) -> f64 {
        if self.weight_in_f32 > 0.0 {
            ERROR_CONSTANT * self.weight_in_f32 / weight
        } else {
            0.0
        }
    }
}
