//! What a CUDA device takes of the work: sums of rows, and products with what is uploaded for a
//! solve or a rounding. What it does is what the host does beside it, by the same formulas and from
//! the same data, which stay in the host's memory until the result is there: whatever call fails,
//! the host goes on.
//!
//! `accelerator` is the device of a run and `placement` shares its memory out, by widths alone;
//! `lent` is what one solve has of it, `uploaded` an operand there, `fed_back` what rounding has
//! there; `row_sums` is R on a device, `resident` that and the rows that the host does not have in
//! its own R yet. `worked` is what of it all is still of use. `opening` finds the device, and
//! `self_test` compares the two sides before it is trusted.

pub(crate) mod accelerator;
pub(crate) mod fed_back;
pub(crate) mod lent;
pub(crate) mod opening;
pub(crate) mod placement;
pub(crate) mod resident;
pub(crate) mod row_sums;
pub(crate) mod self_test;
pub(crate) mod uploaded;
pub(crate) mod worked;
