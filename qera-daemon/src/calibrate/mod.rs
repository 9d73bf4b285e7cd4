//! Statistics of each site's input: everything a solve may need (`site`), a window of held-out rows (`window`), and rows kept aside to score corrections older than they
//! are (`aside`).

mod aside;
mod site;
mod window;

pub use aside::{ASIDE_ROWS, Aside, AsideRecord, scored_share};
pub use site::{FoldError, SiteStatistics};
pub use window::{Block, BlocksRecord, WINDOW_ROWS, WINDOW_ROWS_PEAK, Window};
