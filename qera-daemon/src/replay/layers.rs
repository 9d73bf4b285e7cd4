//! Finds the checkpoint's layer for each name of an adapter, in any of its forms.

use globset::escape;

use crate::error::Fatal;
use crate::publish::check::findings::Findings;
use crate::replay::base::ReplayedBase;
use crate::replay::claims::{ClaimedLayer, ReplayClaims};
use crate::replay::factors::AdapterFactors;
use crate::settings::Settings;
use crate::settings::parse::globs;
use crate::settings::publish::AdapterForm;
use crate::weights::Weights;
use crate::weights::gguf::layer_names::{GgufLayerPlace, GgufNames};
use crate::weights::gguf::rows::RowOrder;
use crate::weights::layers::{Layer, module_of};
use crate::weights::mlx::MlxNames;
use crate::weights::opening::Model;

/// A layer of the adapter that was found in the checkpoint.
#[derive(Debug)]
pub(crate) struct FoundLayer {
    /// The layer's name in the form.
    pub(crate) name: String,
    /// The order of its rows in a GGUF.
    pub(crate) rows: RowOrder,
    /// Its index among the selected layers.
    pub(crate) layer: usize,
    /// The manifest's claims about it.
    pub(crate) said: Option<ClaimedLayer>,
}

/// Settings that select the adapter's layers by their full names, unless layers were selected by
/// options. Without full names an output layer would not be selected, and a weight that no shard
/// names could not be told.
///
/// # Errors
/// [`Fatal::Usage`] for a name that is no pattern.
pub(crate) fn with_layers_of(
    settings: &Settings,
    forms: &[AdapterFactors],
    claims: Option<&ReplayClaims>,
    model: &Model,
) -> Result<Settings, Fatal> {
    let mut settings = settings.clone();
    if !settings.weights.selection.include.is_empty() {
        return Ok(settings);
    }
    let is_matrix = |name: &&str| model.shape(name).is_some_and(|shape| shape.len() == 2);
    let mut all = Vec::new();
    for form in forms {
        let claimed = |name| claims.and_then(|claims| claims.layer(form.form(), name));
        let names = form.names().into_iter();
        let names = names.map(|name| claimed(name).map_or(name, |layer| layer.name.as_str()));
        let names: Vec<&str> = names.filter(is_matrix).collect();
        if names.is_empty() {
            // The adapter has names of its own: what the shards name is searched instead.
            return Ok(settings);
        }
        // A name that is left out need not match anything.
        all.extend(
            names
                .into_iter()
                .filter(|name| !settings.weights.selection.is_left_out(name)),
        );
    }
    let all: Vec<String> = all.into_iter().map(escape).collect();
    settings.weights.selection.include = globs("include", &all)?;
    Ok(settings)
}

/// Where the names of an adapter are looked up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerLookup<'a> {
    /// The selected layers.
    pub(crate) weights: &'a Weights,
    /// The manifest.
    pub(crate) claims: Option<&'a ReplayClaims>,
    /// The base; a GGUF knows the order of its rows.
    pub(crate) base: &'a ReplayedBase,
}

impl LayerLookup<'_> {
    /// The adapter's layers that are selected. The others are told.
    pub(crate) fn find(&self, form: &AdapterFactors, findings: &mut Findings) -> Vec<FoundLayer> {
        let places = match form.form() {
            AdapterForm::Gguf => self.gguf_places(findings),
            AdapterForm::Peft | AdapterForm::Mlx => Vec::new(),
        };
        let names = match form.form() {
            AdapterForm::Mlx => MlxNames::of(self.weights).ok(),
            AdapterForm::Peft | AdapterForm::Gguf => None,
        };
        let mut found = Vec::new();
        for name in form.names() {
            let said = self.claims.and_then(|of| of.layer(form.form(), name));
            let is_place = |place: &&Option<GgufLayerPlace>| {
                place.as_ref().is_some_and(|place| place.tensor == name)
            };
            let is_layer = |at: usize, layer: &Layer| match said {
                Some(said) => said.name == layer.name,
                None => {
                    layer.served_as == name
                        || layer.name == name
                        || places.get(at).filter(is_place).is_some()
                        || names.as_ref().is_some_and(|of| of.layers[at].name == name)
                }
            };
            let mut layers = self.weights.layers().iter().enumerate();
            let Some((layer, _)) = layers.find(|(at, layer)| is_layer(*at, layer)) else {
                self.say_missing(form.form(), name, said, findings);
                continue;
            };
            let place = places.get(layer).and_then(Option::as_ref);
            let said_place = said.and_then(|layer| layer.gguf.as_ref());
            found.push(FoundLayer {
                name: name.to_owned(),
                rows: place
                    .or(said_place)
                    .map_or(RowOrder::AsTheyLie, |of| of.rows),
                layer,
                said: said.cloned(),
            });
        }
        found
    }

    /// The place of each selected layer in a GGUF: in the base, if that is a GGUF, because the
    /// engine adds the adapter's rows to its rows; otherwise as a converter for the model's kind
    /// has it.
    fn gguf_places(&self, findings: &mut Findings) -> Vec<Option<GgufLayerPlace>> {
        let layers = self.weights.layers().iter();
        let served: Vec<_> = layers.map(|layer| self.base.gguf_place(layer)).collect();
        if served.iter().any(Option::is_some) {
            return served;
        }
        match GgufNames::of(self.weights) {
            Ok(names) => names.layers.into_iter().map(Some).collect(),
            Err(error) => {
                // The manifest's names and row orders are enough.
                if self.claims.is_none() {
                    findings.not_checked(format!("replay: {error}"));
                }
                served
            }
        }
    }

    fn say_missing(
        &self,
        form: AdapterForm,
        name: &str,
        said: Option<&ClaimedLayer>,
        findings: &mut Findings,
    ) {
        let family = self.weights.family().filter(|_| form == AdapterForm::Gguf);
        let of_family = family.and_then(|family| family.module_of(name));
        let module = match (said, of_family) {
            (Some(layer), _) => layer.name.clone(),
            (None, Some(module)) => module,
            (None, None) => module_of(name).unwrap_or(name).to_owned(),
        };
        if let Some(why) = self.weights.why_passed_over(&module) {
            return findings.not_checked(format!("replay: {module}: {why}"));
        }
        let path = self.weights.path().display();
        findings.problem(format!("replay: {module}: {path} has no '{module}.weight'"));
    }
}
