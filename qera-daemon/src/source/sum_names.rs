//! The names of the tensors of a sum over rows: a module's name, and one of these endings.

/// The sum of x^T x over rows, upper triangle by rows.
pub(crate) const XTX: &str = "::xtx";
/// The number of these rows.
pub(crate) const XTX_ROWS: &str = "::xtx_rows";
/// The sum of their weights, and the sum of the weights' squares.
pub(crate) const XTX_WEIGHT: &str = "::xtx_weight";
/// The sum of |x| for each channel.
pub(crate) const ABS_SUM: &str = "::abs_sum";
/// The largest batch mean of |x| for each channel.
pub(crate) const BATCH_MAX: &str = "::batch_max_mean_abs";
