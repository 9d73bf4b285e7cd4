//! Checks the tensors against the manifest: which layers have some, how large they are, how they
//! are scaled, and that none is zero without a reason.

use crate::formats::peft::config::PeftConfig;
use crate::publish::check::adapter_folder::CONFIG;
use crate::publish::check::findings::Findings;
use crate::publish::check::form_pairs::{CheckedPair, FormPairs};
use crate::publish::check::manifest_claims::{LayerClaim, ManifestClaims};
use crate::publish::manifest_seal::MANIFEST;

/// Compares one form of one of qera's adapters with its manifest.
pub(crate) fn check_claims(form: &FormPairs, manifest: &ManifestClaims, findings: &mut Findings) {
    let (file, layers) = (&form.file, form.layers_of(manifest));
    for (name, layer) in &layers {
        match (layer.is_solved(), form.with_tensors.contains(*name)) {
            (true, false) => findings.problem(format!(
                "{file}: {name} has no tensors, {MANIFEST} calls it {}",
                layer.status
            )),
            (false, true) => findings.problem(format!(
                "{file}: {name} has tensors, {MANIFEST} calls it {}",
                layer.status
            )),
            _ => {}
        }
    }
    for (name, pair) in &form.pairs {
        match layers.get(name.as_str()) {
            Some(layer) => {
                let claim = SaidOfPair {
                    file,
                    name,
                    layer,
                    corrects_nothing: manifest.corrects_nothing(),
                };
                claim.check(pair, findings);
            }
            None => findings.problem(format!(
                "{file}: {name} has tensors, {MANIFEST} does not know it"
            )),
        }
    }
    let something = form.pairs.values().any(|pair| !pair.is_zero());
    // Where no layer gains anything, zeros are as they should be.
    let gains = layers.values().any(|layer| layer.gains());
    if !form.pairs.is_empty() && !something && gains && !manifest.corrects_nothing() {
        findings.problem(format!(
            "{file}: every pair is zero: the adapter changes nothing"
        ));
    }
}

/// What a manifest says about one pair of factors.
struct SaidOfPair<'a> {
    file: &'a str,
    name: &'a str,
    layer: &'a LayerClaim,
    corrects_nothing: bool,
}

impl SaidOfPair<'_> {
    fn check(&self, pair: &CheckedPair, findings: &mut Findings) {
        let Self {
            file,
            name,
            layer,
            corrects_nothing,
        } = *self;
        let shape = [pair.out_features, pair.in_features];
        let said = [layer.out_features, layer.in_features];
        if shape != said {
            findings.problem(format!(
                "{file}: {name}: A and B make {shape:?}, {MANIFEST} says {said:?}"
            ));
        }
        if layer.rank_used > pair.rank {
            findings.problem(format!(
                "{file}: {name}: its pair has rank {}, {MANIFEST} says that {} is used",
                pair.rank, layer.rank_used
            ));
        }
        if pair.is_zero() && layer.gains() && !corrects_nothing {
            let factor = if pair.b_is_zero { 'B' } else { 'A' };
            findings.problem(format!(
                "{file}: {name}: {factor} is all zero, {MANIFEST} says that its correction takes something off the error"
            ));
        }
    }
}

/// Checks that PEFT scales no pair, since qera's corrections are applied as they are.
pub(crate) fn check_scales(config: &PeftConfig, form: &FormPairs, findings: &mut Findings) {
    for name in form.pairs.keys() {
        let scale = config.scale_of(name);
        if let Some(scale) = scale.filter(|scale| (scale - 1.0).abs() > 1e-9) {
            findings.problem(format!(
                "{CONFIG}: {name}: lora_alpha and r scale its correction by {scale}, which qera makes for a scale of 1"
            ));
        }
    }
}

/// Judges zeros in an adapter that does not say why it has some.
pub(crate) fn check_zeros(form: &FormPairs, findings: &mut Findings) {
    let FormPairs { file, pairs, .. } = form;
    for (name, pair) in pairs.iter().filter(|(_, pair)| pair.is_zero()) {
        let factor = if pair.b_is_zero { 'B' } else { 'A' };
        findings.note(format!(
            "{file}: {name}: {factor} is all zero: it changes nothing"
        ));
    }
    if !pairs.is_empty() && pairs.values().all(CheckedPair::is_zero) {
        findings.problem(format!(
            "{file}: every pair is zero: the adapter changes nothing"
        ));
    }
}
