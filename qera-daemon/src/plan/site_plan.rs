//! What one site needs from its first row to the end.

use qera_core::dtype::FloatDtype;
use qera_core::packed::packed_len;
use serde::Serialize;

use crate::calibrate::aside::{ASIDE_ROWS, ASIDE_ROWS_PEAK, rows_kept, scored_share};
use crate::calibrate::window::{WINDOW_ROWS, WINDOW_ROWS_PEAK, block_rows};
use crate::host::kernels::rank_update::scratch_bytes;
use crate::judge::schedule::longest_wait;
use crate::plan::planned_run::{PlannedRun, Start};
use crate::source::admission::Entry;

/// One site.
#[derive(Debug, Serialize)]
pub(crate) struct SitePlan {
    /// First member.
    pub(crate) name: String,
    /// Width.
    pub(crate) in_features: usize,
    /// Rows that the shards announce.
    pub(crate) rows: u64,
    /// R and the per-channel statistics.
    pub(crate) statistics_bytes: u64,
    /// Held-out rows.
    pub(crate) window_bytes: u64,
    /// In a live run: rows kept aside to score corrections.
    pub(crate) aside_bytes: u64,
    /// Both, however many rows come.
    pub(crate) rows_bound_bytes: u64,
    /// While its rows are folded.
    #[serde(skip)]
    pub(crate) scratch_bytes: u64,
}

impl SitePlan {
    /// Of the site with this index.
    #[must_use]
    pub(crate) fn new(run: &PlannedRun<'_>, index: usize, keeps_r: bool) -> Self {
        let site = &run.sites.sites[index];
        // Several keys of one site in a shard count once.
        let entries: Vec<&Entry> = run
            .shards
            .iter()
            .filter_map(|s| s.entry_of(index))
            .collect();
        let rows: u64 = entries.iter().map(|entry| entry.rows as u64).sum();
        let (m, live) = (site.in_features, run.solving.is_live());
        let packed = if keeps_r { packed_len(m) } else { 0 };
        let blocks = entries.iter().map(|e| block_rows(e.rows, e.sequences));
        let (block, waiting) = blocks.max().unwrap_or((1, WINDOW_ROWS_PEAK - WINDOW_ROWS));
        let most = WINDOW_ROWS / block * block + waiting;
        // Some is there in a run that continues; more may come to a live one.
        let known = !entries.is_empty() && run.start == Start::Anew;
        let held = if known {
            most.min(usize::try_from(rows).unwrap_or(usize::MAX))
        } else {
            most
        };
        let (aside, aside_most) = if live {
            let sizes = site.layers.iter().map(|&l| &run.layers[l]);
            let share = scored_share(m, sizes.map(|l| (l.out_features, l.rank)));
            let wait = longest_wait(m, entries.iter().map(|e| e.rows as u64));
            let most = if run.settings.convergence.closes_sites() {
                ASIDE_ROWS_PEAK
            } else {
                ASIDE_ROWS
            };
            let kept = if known {
                rows_kept(wait, block, share)
            } else {
                most
            };
            (kept, most)
        } else {
            (0, 0)
        };
        let held_most = if live { most } else { held };
        let in_pairs = |entry: &&Entry| {
            run.settings.compute.kernel.multiplies_bf16() && entry.dtype == FloatDtype::Bf16
        };
        let scratch = entries
            .iter()
            .map(|entry| scratch_bytes(m, entry.rows, in_pairs(entry)))
            .max()
            .unwrap_or_else(|| scratch_bytes(m, usize::MAX, false));
        Self {
            name: site.name.clone(),
            in_features: m,
            rows,
            statistics_bytes: 8 * (packed + 5 * m) as u64,
            window_bytes: (held * 4 * m) as u64,
            aside_bytes: (aside * 4 * m) as u64,
            rows_bound_bytes: ((held_most + aside_most) * 4 * m) as u64,
            scratch_bytes: if keeps_r { scratch as u64 } else { 0 },
        }
    }
}
