//! Sends recorded rows through the files as they are written: what a base alone and a base with its
//! adapter make of each layer's inputs, compared with what the full-precision weights make of them.
//!
//! For every layer three figures are measured, each the mean over the rows, by their weights, of a
//! squared norm: |x W|^2, |x (W~ - W)|^2 and |x (W~ + A B - W)|^2. A and B are the numbers in the
//! adapter's files (`factors`), W~ those in the base's (`base`), W those of the checkpoint, and
//! rows are read as a run reads them (`recorded`). Nothing of the solve takes part, neither R nor
//! an E that a run formed, so that a defect there shows here. For a layer there are three matrices
//! in f32 (`measure`): W, W - W~ and W - W~ - A B. The rows pass by all of them once, a piece at a
//! time, with f32 products and f64 sums (`rows`). In memory at a time are these matrices, the
//! layer's factors, and the rows of one input in one shard (a whole shard while it is checked, as
//! in a run); W~ is decoded some columns at a time. Every shard is read twice, to know its content
//! and to check it. Then the rows of a layer's input are read once for each layer and each form of
//! the adapter (q, k and v, which share an input, each by itself).
//!
//! The figures are compared with the manifest (`claims`, `judgement`) and told (`report`).

pub(crate) mod base;
pub(crate) mod claims;
pub(crate) mod factors;
pub(crate) mod judgement;
pub(crate) mod layers;
pub(crate) mod measure;
pub(crate) mod recorded;
pub(crate) mod report;
pub(crate) mod rows;

use std::path::Path;

use crate::error::Fatal;
use crate::host::compute::Compute;
use crate::host::cores::Cores;
use crate::publish::check::findings::Findings;
use crate::replay::base::ReplayedBase;
use crate::replay::claims::ReplayClaims;
use crate::replay::factors::AdapterFactors;
use crate::replay::judgement::{Agreement, BesideManifest, OF_WINDOW};
use crate::replay::layers::{FoundLayer, LayerLookup, with_layers_of};
use crate::replay::measure::{MeasuredErrors, Measuring, NotMeasured};
use crate::replay::recorded::Recorded;
use crate::replay::report::{LayerReport, ReplayReport};
use crate::replay::rows::SiteRows;
use crate::settings::replay::ReplaySettings;
use crate::weights::opening::Model;

/// Replays the recorded rows through an adapter on its base. What is wrong goes to the findings.
///
/// # Errors
/// [`Fatal`] for a checkpoint or a folder of shards that cannot be read.
pub(crate) fn replay(
    adapter: &Path,
    base: &Path,
    replayed: &ReplaySettings,
    findings: &mut Findings,
) -> Result<Vec<ReplayReport>, Fatal> {
    let claims = ReplayClaims::of(adapter);
    let forms = AdapterFactors::all_in(adapter);
    let model = Model::open(&replayed.settings)?;
    let Some(model) = model.filter(|_| !forms.is_empty()) else {
        findings.problem("replay: there is no adapter whose factors can be read".into());
        return Ok(Vec::new());
    };
    let settings = with_layers_of(&replayed.settings, &forms, claims.as_ref(), &model)?;
    let recorded = Recorded::read(&settings, &model, &replayed.activations, findings)?;
    let base = match ReplayedBase::open(base, recorded.weights.checkpoint()) {
        Ok(base) => base,
        Err(error) => {
            findings.problem(format!("replay: base: {error}"));
            return Ok(Vec::new());
        }
    };
    let cores = Cores::new(settings.compute.threads);
    let _core = cores.take();
    let replay = Replay {
        compute: Compute::new(settings.compute.kernel, &cores),
        base,
        claims,
        most_rows: replayed.most_rows,
        recorded,
    };
    replay.note_other_checkpoint(findings);
    let reports = forms.iter().map(|form| replay.form(form, findings));
    Ok(reports.collect())
}

/// What the replays of all layers share.
struct Replay<'a> {
    compute: Compute<'a>,
    base: ReplayedBase,
    claims: Option<ReplayClaims>,
    most_rows: Option<usize>,
    recorded: Recorded,
}

impl Replay<'_> {
    /// Notes where W is not the checkpoint that the adapter was made with, because the manifest's
    /// figures are of that one.
    fn note_other_checkpoint(&self, findings: &mut Findings) {
        let said = self.claims.as_ref().and_then(ReplayClaims::model);
        let (weights, said) = (&self.recorded.weights, said.unwrap_or_default());
        if !said.is_empty() && said != weights.identity() {
            findings.note(format!(
                "replay: {} is another file of weights ({}) than the adapter was made with \
                 ({said})",
                weights.path().display(),
                weights.identity()
            ));
        }
    }

    /// Replays every layer of a form, site by site. Only then is it known of which rows the
    /// manifest's figures are.
    fn form(&self, form: &AdapterFactors, findings: &mut Findings) -> ReplayReport {
        let weights = &self.recorded.weights;
        let lookup = LayerLookup {
            weights,
            claims: self.claims.as_ref(),
            base: &self.base,
        };
        let found = lookup.find(form, findings);
        let called = form.form().name();
        let mut layers = Vec::new();
        for (site, of) in self.recorded.sites.sites.iter().enumerate() {
            let rows = SiteRows::new(&self.recorded, site, self.most_rows);
            for found in found
                .iter()
                .filter(|found| of.layers.contains(&found.layer))
            {
                let measured = self.layer(form, &rows, found, findings);
                layers.extend(measured.map(|measured| Replayed {
                    found,
                    measured,
                    all_rows: rows.are_all(),
                }));
            }
        }
        if layers.is_empty() {
            findings.problem(format!(
                "replay: no layer of the {} adapter was replayed",
                called
            ));
        }
        let same_rows = self.recorded.is_of(self.claims.as_ref()) || are_same_rows(&layers);
        let mut report = ReplayReport::new(called, &self.recorded);
        for layer in &layers {
            let name = &weights.layers()[layer.found.layer].name;
            let verdict = layer.beside(same_rows).verdict(&layer.measured);
            tell(name, called, &layer.measured, &verdict, findings);
            report.take(LayerReport::new(name, layer.found, layer.measured, verdict));
        }
        report
    }

    /// Measures a layer; `None` where it cannot be measured, which is told.
    fn layer(
        &self,
        form: &AdapterFactors,
        rows: &SiteRows<'_>,
        found: &FoundLayer,
        findings: &mut Findings,
    ) -> Option<MeasuredErrors> {
        let name = &self.recorded.weights.layers()[found.layer].name;
        let too_few = match rows.count() {
            0 => Some("the shards hold no row of its input"),
            1 => Some("a single row of its input says nothing"),
            _ => None,
        };
        if let Some(why) = too_few {
            findings.not_checked(format!("replay: {name}: {why}"));
            return None;
        }
        let measuring = Measuring {
            compute: self.compute,
            weights: &self.recorded.weights,
            layer: found.layer,
            base: &self.base,
            rows,
        };
        match measuring.measure(|| form.read(&found.name, found.rows)) {
            Ok(measured) if measured.says_nothing() => findings.not_checked(format!(
                "replay: {name}: its {} rows make no output and no error: they are zero, or its weights are",
                measured.rows
            )),
            Ok(measured) => return Some(measured),
            Err(NotMeasured::Unread(what)) => {
                findings.not_checked(format!("replay: {name}: {what}"));
            }
            Err(error) => findings.problem(format!("replay: {name}: {error}")),
        }
        None
    }
}

/// A layer that was measured.
struct Replayed<'a> {
    found: &'a FoundLayer,
    measured: MeasuredErrors,
    all_rows: bool,
}

impl Replayed<'_> {
    fn beside(&self, same_rows: bool) -> BesideManifest<'_> {
        BesideManifest {
            said: self.found.said.as_ref(),
            same_rows,
            all_rows: self.all_rows,
        }
    }
}

/// Whether the rows are the manifest's, judged by the outputs' power in most layers: in a single
/// layer it may be the same by chance.
fn are_same_rows(layers: &[Replayed<'_>]) -> bool {
    let as_long = layers
        .iter()
        .filter(|layer| layer.beside(false).is_as_long(&layer.measured));
    let alike = as_long
        .clone()
        .filter(|layer| layer.beside(false).has_power(&layer.measured));
    2 * alike.count() > as_long.count()
}

/// Tells what is wrong with a layer.
fn tell(
    layer: &str,
    form: &str,
    measured: &MeasuredErrors,
    verdict: &Agreement,
    findings: &mut Findings,
) {
    if measured.does_harm() {
        findings.problem(format!(
            "replay: {layer}: the {form} adapter does harm: its error is {:.4e} of the output's \
             power with it and {:.4e} without, on {} rows",
            measured.relative_with(),
            measured.relative_without(),
            measured.rows
        ));
    }
    if *verdict == Agreement::RowsOfWindow {
        findings.not_checked(format!(
            "replay: {layer}: its figures nearer than a factor of {OF_WINDOW}, because the \
             manifest's are of only some of these rows ({form})"
        ));
    }
    if let Agreement::Differs(figures) = verdict {
        for figure in figures {
            findings.problem(format!(
                "replay: {layer}: {figure}, on the rows that the manifest's figure is of"
            ));
        }
    }
}
