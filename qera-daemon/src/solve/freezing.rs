//! Freezing: W~ of a site's layers is made once, before anything is solved with it.

use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::round::metric::DAMPING;
use crate::solve::rounder::{SiteRounding, round_site};
use crate::solve::site::SiteSolver;
use crate::weights::freezing::{RoundedFrom, RoundedValues};
use crate::weights::sites::Site;

impl SiteSolver<'_> {
    /// Rounds and freezes those layers of a site that have no W~ yet, from the statistics of the
    /// shards up to `journal_position`; returns these layers.
    ///
    /// # Errors
    /// [`Fatal`] naming the layer, and where W~ cannot be written.
    pub(crate) fn freeze(
        &self,
        site: &Site,
        statistics: &SiteStatistics,
        journal_position: u64,
    ) -> Result<Vec<usize>, Fatal> {
        let layers = self.layers_of(site);
        if layers.are_quantized() {
            return Ok(Vec::new());
        }
        let mut packed = Vec::new();
        let SiteRounding {
            shrinkage,
            rows,
            left_out,
            blocks_seen,
        } = round_site(&layers, statistics, |member, rounded| {
            let of = RoundedValues {
                values: &rounded.values,
                levels: &rounded.levels,
            };
            let layer = site.layers[member];
            packed.push(self.weights.pack(layer, &of, rounded.record)?);
            Ok(())
        })?;
        let from = RoundedFrom {
            shrinkage,
            damping: DAMPING,
            rows,
            journal_position,
            left_out,
            blocks_seen,
        };
        self.weights.freeze(packed, &from)
    }
}
