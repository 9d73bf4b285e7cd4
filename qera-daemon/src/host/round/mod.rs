//! Rounding that knows the statistics: W to W~ under a metric H, all output columns side by side.
//!
//! `metric` makes H and its factor from what stands for R and from A; `start` finds the A to begin
//! with; `lanes` is a panel of output columns, as many as the kernels take at once; `feedback`
//! rounds, `descent` improves what was rounded. The same arithmetic stands in `qera-core`
//! (`quantize/round/`) in f64, without heap or threads, and is the check of this one.

pub(crate) mod descent;
pub(crate) mod feedback;
pub(crate) mod lanes;
pub(crate) mod metric;
pub(crate) mod start;
