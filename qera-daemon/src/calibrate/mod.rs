//! Statistics of each site's input: the rank update (`rank_update`), everything a solve may need
//! (`site`), a window of held-out rows (`window`), and rows kept aside to score corrections older than they
//! are (`aside`).

mod aside;
mod rank_update;
mod site;
mod window;

pub use aside::{ASIDE_ROWS, Aside, AsideRecord, scored_share};
pub use rank_update::{ROWS_MAX, subtract_products};
pub use site::{FoldError, SiteStatistics, scratch_len};
pub use window::{Block, BlocksRecord, WINDOW_ROWS, WINDOW_ROWS_PEAK, Window};
