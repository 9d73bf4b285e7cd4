//! Statistics of each site's input: everything a solve may need (`site`), a window of held-out rows
//! (`window`), rows kept aside to score corrections older than they are (`aside`), both in
//! `blocks`, the rows of a block that are scored (`sample`), what becomes of the rows
//! of a site that has converged (`follow`), rows that came as sums (`summed`) and what these lack
//! for a solve (`sum_gaps`).

pub(crate) mod aside;
pub(crate) mod blocks;
pub(crate) mod follow;
pub(crate) mod imatrix;
pub(crate) mod imatrix_files;
pub(crate) mod pending;
pub(crate) mod row_room;
pub(crate) mod sample;
pub(crate) mod site;
pub(crate) mod sum_gaps;
pub(crate) mod summed;
pub(crate) mod summed_part;
pub(crate) mod window;
