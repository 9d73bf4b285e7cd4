//! From a site's statistics and its layers' weights to the low-rank terms, and what they are worth.
//!
//! `site` is the order of events; `error_matrix` is E; `metric` says what stands in the place of R for each method;
//! `subspace` finds the top eigenvectors of G = E^T S E; `held_out` judges candidates on the window
//! and chooses the shrinkage; `factors` balances and rounds A and B; `yardstick` measures f; `schedule` says
//! when a site is solved again, `evidence` what new rows say of the corrections before, `closing` when a site has
//! rows enough and when it has not any more.

pub(crate) mod cost;
pub(crate) mod direct;
pub(crate) mod site;
