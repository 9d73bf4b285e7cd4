//! What `--until-converged` still waits for, as the ledger has it.

use crate::judge::evidence::BLOCKS_MIN;
use crate::judge::progress::Lack;
use crate::judge::schedule::first_point;
use crate::observe::waiting::{NextPoint, WaitingForConvergence};
use crate::pipeline::context::Context;
use crate::pipeline::entries::LayerEntry;
use crate::settings::convergence::Until;

impl Context<'_> {
    /// The layers that keep the run from ending, by what they lack; `None` where there are none.
    pub(crate) fn waiting(&self) -> Option<WaitingForConvergence> {
        let Until::Converged { all } = self.settings.convergence.until else {
            return None;
        };
        let entries = self.ledger.layers();
        let mut waiting = WaitingForConvergence {
            tolerance: self.settings.convergence.tolerance,
            blocks_needed: BLOCKS_MIN,
            ..WaitingForConvergence::default()
        };
        let none_fed = !entries.iter().any(LayerEntry::is_fed);
        for site in &self.sites.sites {
            for entry in site.layers.iter().map(|&layer| &entries[layer]) {
                if entry.is_fed() {
                    waiting.enter(entry, first_point(site.in_features));
                } else if all || none_fed {
                    waiting.layers += 1;
                    waiting.starved += 1;
                }
            }
        }
        (waiting.layers > 0).then_some(waiting)
    }
}

impl WaitingForConvergence {
    /// Counts a layer that has rows and has not converged.
    fn enter(&mut self, entry: &LayerEntry, first_point: u64) {
        let Some(lack) = entry.summary.lack(self.tolerance) else {
            return;
        };
        self.layers += 1;
        match lack {
            Lack::Evidence => self.unscored += 1,
            Lack::Gain(upper) => {
                self.gaining += 1;
                self.gain_upper = Some(self.gain_upper.map_or(upper, |most| most.max(upper)));
            }
            Lack::Blocks(blocks) => {
                self.short_of_blocks += 1;
                self.blocks = Some(self.blocks.map_or(blocks, |least| least.min(blocks)));
            }
            Lack::SecondPoint => self.below_once += 1,
        }
        let next = NextPoint {
            rows: entry.rows + entry.summary.rows_skipped,
            point: entry.summary.next_point.max(first_point),
        };
        if self.next.is_none_or(|before| next.lacks() < before.lacks()) {
            self.next = Some(next);
        }
    }
}
