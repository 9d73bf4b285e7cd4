//! Whether a solve pays, and how good a correction is: candidates on held-out rows, evidence of
//! solve points, when a site is closed, and f of what is written, or its window error where f
//! cannot be had.

pub(crate) mod closing;
pub(crate) mod cross_fitting;
pub(crate) mod ends;
pub(crate) mod evidence;
pub(crate) mod gap;
pub(crate) mod held_out;
pub(crate) mod progress;
pub(crate) mod sampled_folds;
pub(crate) mod scaled_sketch;
pub(crate) mod schedule;
pub(crate) mod scores;
pub(crate) mod shared_basis;
pub(crate) mod site_metric;
pub(crate) mod training;
pub(crate) mod yardstick;
