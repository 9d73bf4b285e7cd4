//! Statistics of each site's input: everything a solve may need (`site`), a window of held-out rows (`window`), rows
//! kept aside to score corrections older than they are (`aside`), and what becomes of the rows of a site that has
//! converged (`follow`).

mod aside;
mod follow;
mod site;
mod window;

pub use aside::{ASIDE_ROWS, ASIDE_ROWS_PEAK, Aside, AsideRecord, rows_kept, scored_share};
pub use site::{FoldError, SiteStatistics};
pub use window::{Block, BlocksRecord, WINDOW_ROWS, WINDOW_ROWS_PEAK, Window, block_rows};
