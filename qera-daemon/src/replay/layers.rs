//! Which layer of the checkpoint an adapter's name means, in any of its forms.

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

/// A layer of the adapter.
#[derive(Debug)]
pub(crate) struct FoundLayer {
    /// What the form has as its name.
    pub(crate) name: String,
    /// Where its rows lie in a GGUF.
    pub(crate) rows: RowOrder,
    /// Which selected layer it is.
    pub(crate) layer: usize,
    /// What the manifest says of it.
    pub(crate) said: Option<ClaimedLayer>,
}

/// Where nobody said which layers, those that the adapter has, by their full names: an output layer
/// is none otherwise, and a weight that no shard names has to be found for it to be said.
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
            // Names of its own: what the shards name is looked through.
            return Ok(settings);
        }
        // A name that is left out is no pattern that must match.
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

/// What the names of an adapter are looked up in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerLookup<'a> {
    /// The selected layers.
    pub(crate) weights: &'a Weights,
    /// The manifest.
    pub(crate) claims: Option<&'a ReplayClaims>,
    /// What it is served on: a GGUF knows where its rows lie.
    pub(crate) base: &'a ReplayedBase,
}

impl LayerLookup<'_> {
    /// The layers of an adapter that are selected; the others are said.
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

    /// What each selected layer is called in a GGUF: in the one that is served, whose rows the
    /// engine adds the adapter's to, else as a converter of the model's kind has it.
    fn gguf_places(&self, findings: &mut Findings) -> Vec<Option<GgufLayerPlace>> {
        let layers = self.weights.layers().iter();
        let served: Vec<_> = layers.map(|layer| self.base.gguf_place(layer)).collect();
        if served.iter().any(Option::is_some) {
            return served;
        }
        match GgufNames::of(self.weights) {
            Ok(names) => names.layers.into_iter().map(Some).collect(),
            Err(error) => {
                // What the manifest says of names and rows is enough.
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
