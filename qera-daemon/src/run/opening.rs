//! The ledger's entries before the first row of a run: what was restored, and what `status.json`
//! said before.

use std::path::Path;
use std::sync::Arc;

use crate::disk;
use crate::observe::status::{LayerStatus, Phase, Status};
use crate::pipeline::entries::{LayerEntry, LedgerEntries, Refusals, RelativeErrors};
use crate::run::prepared::Prepared;
use crate::state::restore::Restored;
use crate::weights::Weights;

impl Prepared<'_> {
    /// The ledger's first entries.
    #[must_use]
    pub(crate) fn entries(&self, restored: &Restored) -> LedgerEntries {
        let settings = self.settings;
        let before = Status::read(&settings.state).unwrap_or_default();
        let known = |name: &str| before.layers.iter().find(|l| l.name == name);
        let layers = self.layers().iter();
        let mut entries = LedgerEntries {
            watch: settings.source.watch.as_deref().map(absolute),
            out: self
                .weights
                .as_ref()
                .map(|_| absolute(&settings.publish.out)),
            phase: Phase::Folding,
            shards: restored.gathered.shards,
            refusals: Refusals {
                count: self.refused.len(),
                reasons: self.refused.clone(),
            },
            generation: before.generation,
            device: settings.compute.device.accelerator().cloned(),
            layers: layers.map(|l| entry(&l.name, known(&l.name))).collect(),
            ..LedgerEntries::default()
        };
        for (index, site) in self.sites.sites.iter().enumerate() {
            let saved = restored.sites.get(index).and_then(Option::as_ref);
            let rows = saved.map_or(0, |state| state.statistics.rows);
            if self.weights.is_none() {
                entries.gather(index, &site.name, rows);
            }
            let progress = saved.and_then(|state| state.progress.as_ref());
            let summaries = progress.map(|p| p.summaries(settings.convergence.tolerance));
            for (member, &layer) in site.layers.iter().enumerate() {
                let entry = &mut entries.layers[layer];
                entry.rows = rows;
                let gathers = |of: &&Arc<Weights>| !of.has_quantized(layer);
                let rounds_at = settings.rounding.round_after_rows(site.in_features);
                entry.rounds_at = self.weights.as_ref().filter(gathers).map(|_| rounds_at);
                if let Some(of_site) = &summaries {
                    entry.summary = of_site[member];
                }
                entry.summary.rows_skipped = saved.map_or(0, |state| state.statistics.rows_skipped);
            }
        }
        entries
    }
}

fn absolute(path: &Path) -> String {
    let path = disk::resolve(path).unwrap_or_else(|_| path.to_path_buf());
    path.display().to_string()
}

/// A layer's latest correction is known from the run before until this run solves the layer.
fn entry(name: &str, before: Option<&LayerStatus>) -> LayerEntry {
    LayerEntry {
        name: name.to_owned(),
        rows_of_correction: before.map_or(0, |layer| layer.rows_solved),
        errors: before.and_then(|layer| match layer.error_without {
            Some(without) => Some(RelativeErrors {
                of_window: false,
                without,
                with: layer.error_with,
            }),
            None => Some(RelativeErrors {
                of_window: true,
                without: layer.window_error_without?,
                with: layer.window_error_with,
            }),
        }),
        ..LayerEntry::default()
    }
}
