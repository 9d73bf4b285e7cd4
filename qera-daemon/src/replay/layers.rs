//! Which layer of the checkpoint a module of an adapter corrects.

use globset::escape;

use crate::error::Fatal;
use crate::publish::check::findings::Findings;
use crate::replay::claims::{ClaimedLayer, ReplayClaims};
use crate::replay::factors::AdapterFactors;
use crate::settings::Settings;
use crate::settings::parse::globs;
use crate::weights::Weights;
use crate::weights::opening::Model;

/// A layer of the adapter.
#[derive(Debug)]
pub(crate) struct FoundLayer {
    /// What the adapter calls it.
    pub(crate) module: String,
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
    let modules = forms.iter().flat_map(AdapterFactors::modules);
    let names = modules.map(|module| name_of(module, claims));
    let is_matrix = |name: &&str| model.shape(name).is_some_and(|shape| shape.len() == 2);
    let names: Vec<String> = names.filter(is_matrix).map(escape).collect();
    settings.weights.selection.include = globs("include", &names)?;
    Ok(settings)
}

/// The checkpoint's name of a module, as far as the manifest tells.
fn name_of<'n>(module: &'n str, claims: Option<&'n ReplayClaims>) -> &'n str {
    let said = claims.and_then(|claims| claims.layer(module));
    said.map_or(module, |layer| &layer.name)
}

/// The layers of an adapter that are selected; the others are said.
pub(crate) fn find_layers(
    form: &AdapterFactors,
    claims: Option<&ReplayClaims>,
    weights: &Weights,
    findings: &mut Findings,
) -> Vec<FoundLayer> {
    let mut found = Vec::new();
    for module in form.modules() {
        let name = name_of(module, claims);
        let mut layers = weights.layers().iter();
        let layer = layers.position(|layer| layer.name == name).or_else(|| {
            weights
                .layers()
                .iter()
                .position(|of| of.served_as == module)
        });
        match layer {
            Some(layer) => found.push(FoundLayer {
                module: module.to_owned(),
                layer,
                said: claims.and_then(|claims| claims.layer(module)).cloned(),
            }),
            None => say_missing(name, weights, findings),
        }
    }
    found
}

fn say_missing(name: &str, weights: &Weights, findings: &mut Findings) {
    if let Some(why) = weights.why_passed_over(name) {
        return findings.not_checked(format!("replay: {name}: {why}"));
    }
    let path = weights.path().display();
    findings.problem(format!("replay: {name}: {path} has no '{name}.weight'"));
}
