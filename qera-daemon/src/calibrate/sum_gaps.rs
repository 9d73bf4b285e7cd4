//! What a solve needs and statistics lack, because rows came as sums.

use qera_core::reconstruct::Method;

use crate::calibrate::site::SiteStatistics;
use crate::settings::solve::{Shrinkage, SolveSettings};

/// Why a site cannot be solved with these settings: its sums came without something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SumGap {
    /// There is no mean of |x| over all rows.
    #[error(
        "{rows} of its rows came as sums without ::abs_sum, which --method {method} needs: choose another method, or gather anew"
    )]
    MeanAbs {
        /// Rows.
        rows: u64,
        /// The method.
        method: Method,
    },
    /// There is no maximum over all batches.
    #[error(
        "{rows} of its rows came as sums without ::batch_max_mean_abs, which --method {method} needs: choose another method, or gather anew"
    )]
    BatchMax {
        /// Rows.
        rows: u64,
        /// The method.
        method: Method,
    },
    /// There are no rows to choose the shrinkage by.
    #[error(
        "all {rows} rows came as sums, and --shrinkage auto is chosen on held-out rows: record some blocks as rows beside the sums, or give --shrinkage a number"
    )]
    NoHeldOutRows {
        /// Rows.
        rows: u64,
    },
    /// There are no rows to measure the error on.
    #[error(
        "all {rows} rows came as sums, and the error of a --method {method} correction is measured on rows: record some blocks as rows beside the sums"
    )]
    NoMeasuredRows {
        /// Rows.
        rows: u64,
        /// The method.
        method: Method,
    },
}

impl SiteStatistics {
    /// What a solve with these settings needs and the sums lack; `None` where nothing is missing.
    pub(crate) fn sum_gap(&self, settings: &SolveSettings) -> Option<SumGap> {
        let method = settings.method;
        let of = &self.summed;
        if of.is_none() {
            return None;
        }
        let rows = self.rows;
        if method.needs_mean_abs() && of.without_abs_sum > 0 {
            let rows = of.without_abs_sum;
            Some(SumGap::MeanAbs { rows, method })
        } else if method.needs_batch_max() && of.without_batch_max > 0 {
            let rows = of.without_batch_max;
            Some(SumGap::BatchMax { rows, method })
        } else if !self.has_sums_alone() {
            None
        } else if method.shrinks() && settings.shrinkage == Shrinkage::Auto {
            Some(SumGap::NoHeldOutRows { rows })
        } else if !self.second_moment.kind().is_traced() {
            Some(SumGap::NoMeasuredRows { rows, method })
        } else {
            None
        }
    }

    /// Whether only sums came, so that there can be no held-out error.
    pub(crate) fn has_sums_alone(&self) -> bool {
        let has_rows = || self.window.all_rows().any(|piece| piece.rows() > 0);
        !self.summed.is_none() && !has_rows()
    }
}
