//! Statistics of each site's input: the rank update (`rank_update`), everything a solve may need
//! (`site`), and a window of held-out rows (`window`).

mod rank_update;
mod site;
mod window;

pub use rank_update::{ROWS_MAX, subtract_products};
pub use site::{FoldError, SiteStatistics, scratch_len};
pub use window::{Block, WINDOW_ROWS, WINDOW_ROWS_PEAK, Window};
