//! Checks that all forms of a generation have the same numbers, so that no engine is served another
//! correction than the next.

use core::iter::zip;
use std::path::Path;

use crate::publish::check::findings::Findings;
use crate::publish::check::form_pairs::FormPairs;
use crate::publish::check::manifest_claims::{LayerClaim, ManifestClaims};
use crate::publish::written::{FormNames, WrittenForm, WrittenPair};
use crate::settings::publish::AdapterForm;

/// A form with its opened files, and what was found in them.
struct OpenedForm<'f> {
    form: AdapterForm,
    files: WrittenForm,
    found: &'f FormPairs,
}

impl OpenedForm<'_> {
    /// The numbers of a layer; `None` where they cannot be read, or are fewer or more than the
    /// layer has.
    fn pair(&self, layer: &LayerClaim) -> Option<WrittenPair> {
        let found = self.found.pairs.get(layer.name_in(self.form)?)?;
        let own = [found.in_features, found.out_features];
        if own != [layer.in_features, layer.out_features] {
            return None;
        }
        let names = FormNames {
            served_as: layer.served_as(),
            gguf: layer.gguf.as_ref(),
            mlx: layer.mlx.as_deref(),
        };
        self.files.pair(names).ok()
    }
}

/// Compares every form of a folder with the first one, layer by layer. What cannot be read is told
/// by the check of that form.
pub(crate) fn check_equal<'f>(
    folder: &Path,
    forms: impl Iterator<Item = &'f FormPairs>,
    manifest: &ManifestClaims,
    findings: &mut Findings,
) {
    let open = |found: &'f FormPairs| {
        let form = found.form;
        let files = WrittenForm::open(folder, form).ok()?;
        Some(OpenedForm { form, files, found })
    };
    let opened: Vec<OpenedForm<'_>> = forms.filter_map(open).collect();
    let Some((first, others)) = opened.split_first() else {
        return;
    };
    for layer in manifest.layers.iter().filter(|layer| layer.is_solved()) {
        for other in others {
            let (Some(one), Some(two)) = (first.pair(layer), other.pair(layer)) else {
                continue;
            };
            if !is_same(&one, &two) {
                findings.problem(format!(
                    "{}: its numbers in the form {} differ from those in the form {}",
                    layer.served_as(),
                    other.form.name(),
                    first.form.name()
                ));
            }
        }
    }
}

/// Whether two pairs are equal, apart from zeros that pad one of them.
fn is_same(one: &WrittenPair, two: &WrittenPair) -> bool {
    let rank = one.rank.max(two.rank);
    let widths = [one, two].map(|of| [of.in_features, of.out_features]);
    let row = |pair: &WrittenPair, values: &[f32], row: usize, length: usize| -> Vec<u32> {
        let own = values.get(row * pair.rank..(row + 1) * pair.rank);
        let own = own.unwrap_or_default().iter().map(|v| v.to_bits());
        own.chain(core::iter::repeat(0)).take(length).collect()
    };
    let padded_a = |pair: &WrittenPair| -> Vec<u32> {
        let own = pair.lora_a.iter().map(|v| v.to_bits());
        let length = rank * pair.in_features;
        own.chain(core::iter::repeat(0)).take(length).collect()
    };
    let rows = 0..one.out_features;
    let [a, b] = [one, two].map(padded_a);
    widths[0] == widths[1]
        && zip(a, b).all(|(x, y)| x == y)
        && rows
            .into_iter()
            .all(|at| row(one, &one.lora_b, at, rank) == row(two, &two.lora_b, at, rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(rank: usize, lora_a: &[f32], lora_b: &[f32]) -> WrittenPair {
        WrittenPair {
            dtype: None,
            in_features: lora_a.len() / rank,
            out_features: lora_b.len() / rank,
            rank,
            lora_a: lora_a.into(),
            lora_b: lora_b.into(),
        }
    }

    #[test]
    fn zeros_that_pad_are_no_difference_and_everything_else_is() {
        let own = pair(1, &[1.0, 2.0], &[3.0, 4.0, 5.0]);
        let padded = pair(2, &[1.0, 2.0, 0.0, 0.0], &[3.0, 0.0, 4.0, 0.0, 5.0, 0.0]);
        assert!(is_same(&own, &padded) && is_same(&padded, &own) && is_same(&own, &own));
        for other in [
            pair(1, &[1.0, 2.5], &[3.0, 4.0, 5.0]),
            pair(1, &[1.0, 2.0], &[3.0, 5.0, 4.0]),
            pair(1, &[1.0, 2.0], &[3.0, 4.0]),
            pair(1, &[1.0, 2.0, 0.0], &[3.0, 4.0, 5.0]),
            pair(2, &[1.0, 2.0, 0.0, 1.0], &[3.0, 0.0, 4.0, 0.0, 5.0, 0.0]),
            pair(2, &[1.0, 2.0, 0.0, 0.0], &[3.0, 0.0, 4.0, 1.0, 5.0, 0.0]),
        ] {
            assert!(
                !is_same(&own, &other) && !is_same(&other, &own),
                "{other:?}"
            );
        }
    }
}
