//! Whether the tensors are what the manifest says of them: which layers have some, how large they
//! are, by how much they are scaled, and that none is zero without a reason.

use std::collections::BTreeMap;

use crate::formats::peft::config::PeftConfig;
use crate::publish::check::adapter_folder::{AdapterFolder, CONFIG, MANIFEST, TENSORS};
use crate::publish::check::factors::CheckedPair;
use crate::publish::check::findings::Findings;
use crate::publish::check::manifest_claims::{LayerClaim, ManifestClaims};

/// Holds an adapter of qera's against its manifest.
pub(crate) fn check_claims(
    folder: &AdapterFolder,
    manifest: &ManifestClaims,
    pairs: &BTreeMap<String, CheckedPair>,
    findings: &mut Findings,
) {
    let layers = manifest.by_served_name();
    let has_tensors = |name: &str| {
        let tensors = folder.tensors.as_ref();
        tensors.is_some_and(|tensors| tensors.pairs.contains_key(name))
    };
    for (name, layer) in &layers {
        match (layer.is_solved(), has_tensors(name)) {
            (true, false) if folder.tensors.is_some() => findings.problem(format!(
                "{TENSORS}: {name} has no tensors, {MANIFEST} calls it {}",
                layer.status
            )),
            (false, true) => findings.problem(format!(
                "{TENSORS}: {name} has tensors, {MANIFEST} calls it {}",
                layer.status
            )),
            _ => {}
        }
    }
    for (name, pair) in pairs {
        match layers.get(name.as_str()) {
            Some(layer) => check_layer(name, layer, pair, manifest.corrects_nothing(), findings),
            None => findings.problem(format!(
                "{TENSORS}: {name} has tensors, {MANIFEST} does not know it"
            )),
        }
        if let Some(config) = &folder.config {
            check_scale(config, name, findings);
        }
    }
    let something = pairs.values().any(|pair| !pair.is_zero());
    // Where nothing gains, zeros have their reason.
    let gains = layers.values().any(|layer| layer.gains());
    if !pairs.is_empty() && !something && gains && !manifest.corrects_nothing() {
        findings.problem(format!(
            "{TENSORS}: every pair is zero: the adapter changes nothing"
        ));
    }
}

fn check_layer(
    name: &str,
    layer: &LayerClaim,
    pair: &CheckedPair,
    corrects_nothing: bool,
    findings: &mut Findings,
) {
    let shape = [pair.out_features, pair.in_features];
    let said = [layer.out_features, layer.in_features];
    if shape != said {
        findings.problem(format!(
            "{TENSORS}: {name}: A and B make {shape:?}, {MANIFEST} says {said:?}"
        ));
    }
    if layer.rank_used > pair.rank {
        findings.problem(format!(
            "{TENSORS}: {name}: its pair has rank {}, {MANIFEST} says that {} is used",
            pair.rank, layer.rank_used
        ));
    }
    if pair.is_zero() && layer.gains() && !corrects_nothing {
        let factor = if pair.b_is_zero { 'B' } else { 'A' };
        findings.problem(format!(
            "{TENSORS}: {name}: {factor} is all zero, {MANIFEST} says that its correction takes something off the error"
        ));
    }
}

/// qera's corrections are applied as they are.
fn check_scale(config: &PeftConfig, name: &str, findings: &mut Findings) {
    let Some(scale) = config.scale_of(name) else {
        return;
    };
    if (scale - 1.0).abs() > 1e-9 {
        findings.problem(format!(
            "{CONFIG}: {name}: lora_alpha and r scale its correction by {scale}, which qera makes for a scale of 1"
        ));
    }
}

/// What zeros mean in an adapter that does not say why it has some.
pub(crate) fn check_zeros(pairs: &BTreeMap<String, CheckedPair>, findings: &mut Findings) {
    for (name, pair) in pairs.iter().filter(|(_, pair)| pair.is_zero()) {
        let factor = if pair.b_is_zero { 'B' } else { 'A' };
        findings.note(format!(
            "{TENSORS}: {name}: {factor} is all zero: it changes nothing"
        ));
    }
    if !pairs.is_empty() && pairs.values().all(CheckedPair::is_zero) {
        findings.problem(format!(
            "{TENSORS}: every pair is zero: the adapter changes nothing"
        ));
    }
}
