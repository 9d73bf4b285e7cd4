//! Freezing: W~ of a site's layers is made once, before anything is solved with it.

use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::round::metric::DAMPING;
use crate::solve::rounder::{SiteRounding, round_site};
use crate::solve::site::SiteSolver;
use crate::weights::freezing::{RoundedFrom, RoundedValues};
use crate::weights::sites::Site;

/// What came of rounding a site's layers.
#[derive(Debug, Default)]
pub(crate) struct FrozenSite {
    /// The layers that have a W~ since then.
    pub(crate) layers: Vec<usize>,
    /// What a device failed in, in words: the host did it.
    pub(crate) demoted: Vec<String>,
}

impl SiteSolver<'_> {
    /// Rounds and freezes those layers of a site that have no W~ yet, from the statistics of the
    /// shards up to `journal_position`.
    ///
    /// # Errors
    /// [`Fatal`] naming the layer, and where W~ cannot be written.
    pub(crate) fn freeze(
        &self,
        site: &Site,
        statistics: &SiteStatistics,
        journal_position: u64,
    ) -> Result<FrozenSite, Fatal> {
        let layers = self.layers_of(site);
        if layers.are_quantized() {
            return Ok(FrozenSite::default());
        }
        let mut packed = Vec::new();
        let SiteRounding {
            shrinkage,
            rows,
            left_out,
            blocks_seen,
            demoted,
        } = round_site(&layers, self.accelerator, statistics, |member, rounded| {
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
        Ok(FrozenSite {
            layers: self.weights.freeze(packed, &from)?,
            demoted,
        })
    }
}
