//! Checks a GGUF adapter: whether llama.cpp would refuse it, and whether it fits a model's GGUF.

use std::path::Path;

use crate::disk::read_if_there;
use crate::formats::gguf::error::Quoted;
use crate::formats::model_config::ModelConfig;
use crate::publish::check::findings::Findings;
use crate::publish::check::form_pairs::{CheckedPair, FormPairs};
use crate::publish::check::manifest_claims::ManifestClaims;
use crate::publish::written::gguf::{GgufFile, LookedThroughPair};
use crate::settings::publish::AdapterForm;
use crate::weights::gguf::file::GgufModel;
use crate::weights::gguf::layer_names::place_by_config;
use crate::weights::gguf::rows::RowOrder;

/// The file that says of which kind a Hugging Face folder is.
const CONFIG: &str = "config.json";

/// Checks every pair, with rows in the order that the manifest gives.
pub(crate) fn check_gguf(
    name: &str,
    file: &GgufFile,
    manifest: Option<&ManifestClaims>,
    findings: &mut Findings,
) -> FormPairs {
    let mut found = FormPairs::new(AdapterForm::Gguf, name.to_owned());
    for problem in &file.lora.problems {
        findings.problem(format!("{name}: {problem}"));
    }
    for unchecked in &file.lora.unchecked {
        findings.not_checked(format!("{name}: {unchecked}"));
    }
    if file.lora.pairs.is_empty() {
        findings.problem(format!("{name}: has no tensor NAME.lora_a"));
    }
    let rows = manifest.map(|of| found.layers_of(of)).unwrap_or_default();
    for tensor in file.lora.pairs.keys() {
        let layer = rows.get(tensor.as_str());
        let place = layer.and_then(|layer| layer.gguf.as_ref());
        let rows = place.map_or(RowOrder::AsTheyLie, |place| place.rows);
        let pair = file.looked_through(tensor, rows);
        found.enter(tensor, pair.map(checked), findings);
        if let Some(pair) = found.pairs.get(tensor) {
            let scale = file.lora.scale(pair.rank);
            if manifest.is_some() && (scale - 1.0).abs() > 1e-9 {
                findings.problem(format!(
                    "{name}: {tensor}: adapter.lora.alpha scales its correction by {scale}, which qera makes for a scale of 1"
                ));
            }
        }
    }
    found
}

fn checked(LookedThroughPair { a, b }: LookedThroughPair) -> CheckedPair {
    CheckedPair {
        in_features: a.columns,
        out_features: b.rows,
        rank: a.rows,
        a_is_zero: a.is_zero,
        b_is_zero: b.is_zero,
    }
}

/// Compares the adapter with the GGUF of the model that it is served on.
pub(crate) fn check_on_gguf(
    file: &GgufFile,
    found: &FormPairs,
    model: &GgufModel,
    manifest: Option<&ManifestClaims>,
    findings: &mut Findings,
) {
    let (name, path) = (&found.file, model.path.display());
    let (own, of_model) = (&file.lora.architecture, model.family.architecture());
    if own != of_model {
        findings.problem(format!(
            "{name}: its general.architecture is '{}', {path} is a '{of_model}': llama.cpp refuses it",
            Quoted::new(own)
        ));
    }
    for (tensor, pair) in &found.pairs {
        let Some(there) = model.tensors.get(tensor) else {
            findings.problem(format!("{name}: {path} has no tensor '{tensor}'"));
            continue;
        };
        let fits = [pair.in_features, pair.out_features];
        if there.ne != fits {
            findings.problem(format!(
                "{name}: {tensor}: A and B fit {fits:?}, {path} has {:?}",
                there.ne
            ));
        }
    }
    let layers = manifest.map(|of| found.layers_of(of)).unwrap_or_default();
    for place in layers.values().filter_map(|layer| layer.gguf.as_ref()) {
        let lie = model.row_order(&place.tensor);
        if let Some(lie) = lie.filter(|lie| *lie != place.rows) {
            findings.problem(format!(
                "{name}: {}: its rows lie in the order {:?}, those of {path} in the order {lie:?}",
                place.tensor, place.rows
            ));
        }
    }
}

/// Compares the tensor names and row orders that a manifest gives for a GGUF adapter with those
/// that a converter would derive from the served folder's config.json.
pub(crate) fn check_on_config(
    found: &FormPairs,
    folder: &Path,
    manifest: &ManifestClaims,
    findings: &mut Findings,
) {
    let (name, path) = (&found.file, folder.join(CONFIG));
    let Ok(Some(bytes)) = read_if_there(&path) else {
        return; // A folder without one is of no kind; what cannot be read is said elsewhere.
    };
    let Ok(config) = ModelConfig::parse(&bytes) else {
        return;
    };
    let path = path.display();
    let layers = found.layers_of(manifest).into_values();
    for (layer, said) in layers.filter_map(|layer| Some((layer, layer.gguf.as_ref()?))) {
        match place_by_config(&config, &layer.name, layer.out_features) {
            Ok(Some(place)) if place != *said => findings.problem(format!(
                "{name}: {}: is written as {} with rows in the order {:?}; by {path} it should be {} \
                 with rows in the order {:?}",
                layer.name, said.tensor, said.rows, place.tensor, place.rows
            )),
            Ok(_) => {}
            Err(error) => findings.not_checked(format!(
                "{name}: {}: whether its rows lie in the order of {path}: {error}",
                layer.name
            )),
        }
    }
}

/// Opens a model's GGUF. Where it is of no known kind, notes why it was not looked at.
pub(crate) fn open_model(path: &Path, findings: &mut Findings) -> Option<GgufModel> {
    match GgufModel::open(path, &[]) {
        Ok(model) => Some(model),
        Err(error) => {
            findings.not_checked(format!("whether the adapter's tensors fit it: {error}"));
            None
        }
    }
}
