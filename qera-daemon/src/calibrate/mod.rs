//! Statistics of each site's input: the rank update (`rank_update`), everything a solve may need
//! (`site`), a window of held-out rows (`window`), rows kept aside to score corrections older than they
//! are (`aside`), and what becomes of the rows of a site that has converged (`follow`).

mod aside;
mod follow;
mod rank_update;
mod site;
mod window;

pub use aside::{ASIDE_ROWS_PEAK, Aside, AsideRecord, scored_share};
pub use rank_update::{ROWS_MAX, subtract_products};
pub use site::{FoldError, SiteStatistics, scratch_len};
pub use window::{Block, BlocksRecord, WINDOW_ROWS, WINDOW_ROWS_PEAK, Window};
