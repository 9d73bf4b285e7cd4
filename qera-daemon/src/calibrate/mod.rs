//! Statistics of each site's input: everything a solve may need (`site`), a window of held-out rows
//! (`window`), rows kept aside to score corrections older than they are (`aside`), both in
//! `blocks`, the rows of a block that are scored (`sample`), and what becomes of the rows of a site that has converged (`follow`).

pub(crate) mod aside;
pub(crate) mod blocks;
pub(crate) mod follow;
pub(crate) mod imatrix;
pub(crate) mod imatrix_files;
pub(crate) mod pending;
pub(crate) mod row_room;
pub(crate) mod sample;
pub(crate) mod site;
pub(crate) mod window;
