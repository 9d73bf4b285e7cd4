//! When the layers of a site are rounded: once R holds enough rows (`--round-after`), at a solve
//! point or when the folder is drained; at once where nothing more will come. Until then the site
//! gathers rows, and has no corrections.
//!
//! What decides at a solve point is how many rows the site has there. What decides for those that
//! have too few is looked at when the folder is drained, and all rows that came are folded and
//! solved: never who is faster.

use core::cmp::Reverse;

use crate::calibrate::site::SiteStatistics;
use crate::error::Fatal;
use crate::host::kernels::pages::give_back;
use crate::judge::schedule::first_point;
use crate::observe::event::Event;
use crate::observe::rounding_events::{LayerRounded, SiteGathering, UnroundedLayers};
use crate::pipeline::context::Context;
use crate::solve::site::SiteSolver;
use crate::weights::sites::Site;

/// At which place of the stream a site is to be solved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SolvePlace {
    /// Number of the last shard that its statistics hold.
    pub(crate) journal_position: u64,
    /// Whether everything is solved cold, because the folder is drained.
    pub(crate) drained: bool,
}

/// What is to be done about W~ of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It is made, where it is not there.
    Now,
    /// The rows are too few, and a generation is written that W~ of every layer belongs to.
    AsNearest,
    /// More rows are waited for.
    Later,
}

/// Rounds: work of its own kind, with the pages of no other.
fn with_own_pages<T>(round: impl FnOnce() -> T) -> T {
    give_back();
    let done = round();
    give_back();
    done
}

impl Context<'_> {
    /// Makes W~ of a site's layers where that is due. Whether they have one.
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
                Ok(newly) => newly,
                // Rounded together, they are what they are without rows together.
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
            // After a kill rows are folded again that W~ has seen. What was not corrected before
            // them is not now, or its evidence would be of rows that W~ knows.
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

    /// Rows that the layers of a site are rounded at.
    fn rounds_at(&self, site: &Site) -> u64 {
        self.settings.rounding.round_after_rows(site.in_features)
    }

    /// What keeps a generation from being written: layers that are fed and wait for more rows to be
    /// rounded. Those of a site that has too few for a solve point are waited for only as long as
    /// none is rounded: an expert that is hardly ever asked must not keep all others back.
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

    /// Whether W~ of every layer of a site can be had; not where nothing is solved.
    pub(crate) fn is_quantized(&self, site: usize) -> bool {
        let site = self.sites.sites.get(site);
        let solver = self.solver.as_ref();
        solver.zip(site).is_some_and(|(solver, site)| {
            let layers = solver.layers_of(site);
            layers.are_quantized()
        })
    }

    /// Whether W~ of every layer can be had; not where nothing is solved.
    pub(crate) fn has_all_quantized(&self) -> bool {
        let solver = self.solver.as_ref();
        solver.is_some_and(|solver| solver.weights.has_all_quantized())
    }

    /// Rounds to nearest what no row, or too few, came for: what is about to be written is W~ of
    /// all layers. Only where the folder is drained: before, rows may be on their way, and how many
    /// have come depends on the clock.
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

    /// Says once that a site waits for more rows.
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
