//! The statistics of each site's input. `site` has everything that a solve may need. `window` holds
//! rows out, and `aside` keeps rows to score corrections that are older than they are; both consist
//! of `blocks`. `sample` chooses the rows of a block that are scored. `follow` treats the rows of a
//! site that has converged. `summed` folds rows that came as sums, and `sum_gaps` says what these
//! lack for a solve. `outputs` has sketches of the output errors, in the place of R.
//! `device_sums` has what a device sums of a site.

pub(crate) mod aside;
pub(crate) mod blocks;
pub(crate) mod device_sums;
pub(crate) mod follow;
pub(crate) mod imatrix;
pub(crate) mod imatrix_files;
pub(crate) mod outputs;
pub(crate) mod pending;
pub(crate) mod row_room;
pub(crate) mod sample;
pub(crate) mod site;
pub(crate) mod sum_gaps;
pub(crate) mod summed;
pub(crate) mod summed_part;
pub(crate) mod window;
