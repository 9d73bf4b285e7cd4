//! When the layers of a site are rounded: once R holds enough rows (`--round-after`), at a solve
//! point or when the folder is drained; at once where no more rows will come. Until then the site
//! gathers rows, and its layers have no corrections.
//!
//! At a solve point the number of the site's rows decides. Whether a site has too few is only
//! decided when the folder is drained, with all rows folded and solved. So it never depends on
//! which thread is faster.

use core::cmp::Reverse;

use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::kernels::pages::give_back;
use crate::judge::schedule::first_point;
use crate::observe::event::Event;
use crate::observe::rounding_events::{LayerRounded, SiteGathering, UnroundedLayers};
use crate::pipeline::context::Context;
use crate::solve::freezing::FrozenSite;
use crate::solve::site::SiteSolver;
use crate::weights::sites::Site;

/// The point of the stream at which a site is solved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SolvePlace {
    /// Number of the last shard in the site's statistics.
    pub(crate) journal_position: u64,
    /// Whether everything is solved cold, because the folder is drained.
    pub(crate) drained: bool,
}

/// What is to be done about a site whose layers may have to be rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// W~ is made now, unless it is there.
    Now,
    /// W~ is rounded to nearest: the rows are too few, and the generation that is written needs W~
    /// of every layer.
    AsNearest,
    /// W~ is made later: more rows are waited for.
    Later,
}

/// Runs a rounding as work of its own kind, which shares no memory pages with other work.
fn with_own_pages<T>(round: impl FnOnce() -> T) -> T {
    give_back();
    let done = round();
    give_back();
    done
}

impl Context<'_> {
    /// Makes W~ of a site's layers where that is due. Returns whether they have one.
    ///
    /// # Errors
    /// [`Fatal`] naming the layer, and where W~ cannot be written.
    pub(crate) fn quantize(
        &self,
        solver: &SiteSolver<'_>,
        site: &Site,
        statistics: &SiteStatistics,
        at: SolvePlace,
    ) -> Result<bool, Fatal> {
        let (weights, rows) = (solver.weights, statistics.rows);
        let layers = || site.layers.iter().copied();
        let newly = match self.due(solver, site, rows, at) {
            Due::Later => {
                self.tell_gathering(site, rows);
                return Ok(false);
            }
            Due::Now => match with_own_pages(|| {
                solver.freeze(site, statistics, at.journal_position)
            }) {
                Ok(FrozenSite { layers, demoted }) => {
                    self.tell_demoted(&site.name, &demoted);
                    layers
                }
                // A site that fails when its layers are rounded together is treated like one
                // without rows, for all of its layers.
                Err(Fatal::Solve { layer, reason }) => {
                    let message = format!("{reason}: its input's layers are rounded to nearest");
                    self.warn_of(&layer, message);
                    weights.freeze_as_nearest(layers(), at.journal_position)?
                }
                Err(fatal) => return Err(fatal),
            },
            Due::AsNearest => weights.freeze_as_nearest(layers(), at.journal_position)?,
        };
        self.ledger.rounded(&newly);
        for layer in newly {
            if let Some(record) = weights.rounding_of(layer) {
                self.reporter.say(&Event::Rounded(LayerRounded {
                    layer: &self.layer(layer).name,
                    record,
                }));
            }
        }
        Ok(true)
    }

    fn due(&self, solver: &SiteSolver<'_>, site: &Site, rows: u64, at: SolvePlace) -> Due {
        if solver.layers_of(site).are_quantized() {
            let made = site.layers.iter().filter_map(|&layer| {
                let record = solver.weights.rounding_of(layer)?;
                record
                    .rounding
                    .uses_rows()
                    .then_some(record.journal_position)
            });
            // After a kill, rows that W~ was made from are folded again. A layer that had no
            // correction before these rows gets none now, or its evidence would be from rows that
            // W~ has seen.
            return if !at.drained && made.max().is_some_and(|made| made > at.journal_position) {
                Due::Later
            } else {
                Due::Now
            };
        }
        if !self.live || rows >= self.rounds_at(site) {
            Due::Now
        } else if at.drained && self.unrounded().is_none() {
            Due::AsNearest
        } else {
            Due::Later
        }
    }

    /// The number of rows at which the layers of a site are rounded.
    fn rounds_at(&self, site: &Site) -> u64 {
        self.settings.rounding.round_after_rows(site.in_features)
    }

    /// What keeps a generation from being written: layers whose inputs have rows and that wait for
    /// more of them to be rounded. A site with too few rows for a solve point is waited for only as
    /// long as no site is rounded: an expert that is hardly ever used must not keep all others
    /// back.
    pub(crate) fn unrounded(&self) -> Option<UnroundedLayers<'_>> {
        let weights = self.solver.as_ref()?.weights;
        let entries = self.ledger.layers();
        let rows_of = |site: &Site| site.layers.first().map_or(0, |&layer| entries[layer].rows);
        let has_quantized = |site: &Site| site.layers.iter().all(|&l| weights.has_quantized(l));
        let sites = || self.sites.sites.iter();
        let any = sites().any(|site| {
            let due = rows_of(site) >= self.rounds_at(site);
            rows_of(site) > 0 && (due || has_quantized(site))
        });
        let waits = |site: &&Site| {
            let rows = rows_of(site);
            let counts = rows >= first_point(site.in_features) || !any;
            counts && 0 < rows && rows < self.rounds_at(site) && !has_quantized(site)
        };
        let lacks = |site: &&Site| Reverse(self.rounds_at(site).saturating_sub(rows_of(site)));
        let last = sites().filter(waits).min_by_key(lacks)?;
        Some(UnroundedLayers {
            layers: sites().filter(waits).map(|site| site.layers.len()).sum(),
            site: &last.name,
            rows: rows_of(last),
            rounds_at: self.rounds_at(last),
        })
    }

    /// Whether every layer of a site has its W~; false where nothing is solved.
    pub(crate) fn is_quantized(&self, site: usize) -> bool {
        let site = self.sites.sites.get(site);
        let solver = self.solver.as_ref();
        solver.zip(site).is_some_and(|(solver, site)| {
            let layers = solver.layers_of(site);
            layers.are_quantized()
        })
    }

    /// Whether every layer has its W~; false where nothing is solved.
    pub(crate) fn has_all_quantized(&self) -> bool {
        let solver = self.solver.as_ref();
        solver.is_some_and(|solver| solver.weights.has_all_quantized())
    }

    /// Rounds to nearest the layers that had no rows, or too few, because W~ of all layers is about
    /// to be written. This is done only when the folder is drained: before that rows may be on
    /// their way, and how many have come depends on the clock.
    ///
    /// # Errors
    /// [`Fatal`] naming the layer, and where W~ cannot be written.
    pub(crate) fn quantize_rest(&self, journal_position: u64) -> Result<(), Fatal> {
        let Some(solver) = &self.solver else {
            return Ok(());
        };
        if !solver.weights.rounding().uses_rows() {
            return Ok(());
        }
        let mut newly = Vec::new();
        for site in &self.sites.sites {
            let layers = site.layers.iter().copied();
            newly.append(&mut solver.weights.freeze_as_nearest(layers, journal_position)?);
        }
        self.ledger.rounded(&newly);
        if !newly.is_empty() {
            let message = format!(
                "{} layers had no rows, or too few: they are rounded to nearest, and stay so",
                newly.len()
            );
            self.warn_of("base", message);
        }
        Ok(())
    }

    /// Says, once, that a site waits for more rows.
    fn tell_gathering(&self, site: &Site, rows: u64) {
        let layers = &site.layers;
        if self.ledger.gathers(layers) {
            self.reporter.say(&Event::Gathering(SiteGathering {
                site: &site.name,
                layers: layers.len(),
                rows,
                rounds_at: self.rounds_at(site),
            }));
        }
    }
}
