//! From a site's statistics and its layers' weights to the low-rank terms: the order of events.
//!
//! `rounder` rounds the weights of a site's layers, `freezing` keeps what it made;
//! `site` chooses on the window and solves layer by layer; `projection` makes a layer's low-rank
//! term, `rounding` rounds it and measures what that costs, `harm` refuses one that makes an error
//! larger, `solution` is what comes out. `direct` is one layer without a checkpoint around it
//! (`on_device`: on a device), `alone` one site without a run, `cost` what a solve takes and
//! `rounding_cost` what rounding under R takes, for the plan.

pub(crate) mod alone;
pub(crate) mod cost;
pub(crate) mod direct;
pub(crate) mod freezing;
pub(crate) mod harm;
pub(crate) mod on_device;
pub(crate) mod projection;
pub(crate) mod rounder;
pub(crate) mod rounding;
pub(crate) mod rounding_cost;
pub(crate) mod site;
pub(crate) mod solution;
