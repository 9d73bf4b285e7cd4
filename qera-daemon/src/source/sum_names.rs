//! What the tensors of a sum over rows are called: a module's name, and what follows it.

/// What follows a module's name in that of a sum of x^T x over rows, upper triangle by rows.
pub(crate) const XTX: &str = "::xtx";
/// In that of the number of these rows,
pub(crate) const XTX_ROWS: &str = "::xtx_rows";
/// of the sum of their weights and of the squares of these,
pub(crate) const XTX_WEIGHT: &str = "::xtx_weight";
/// of the sum of |x| for each channel,
pub(crate) const ABS_SUM: &str = "::abs_sum";
/// and of the largest batch mean of |x|.
pub(crate) const BATCH_MAX: &str = "::batch_max_mean_abs";
