//! Whether an adapter belongs on a model: shapes and fingerprints fit, and the model's weights are
//! quantized as the correction expects.

use std::collections::{BTreeMap, BTreeSet};

use qera_core::quantize::Grid;

use crate::publish::base::{Base, BaseRecord, RECORD, rounding_of};
use crate::publish::check::findings::Findings;
use crate::publish::check::form_pairs::CheckedPair;
use crate::publish::check::manifest_claims::{LayerClaim, ManifestClaims};
use crate::publish::check::served_model::{ServedModel, ServedWeight};
use crate::publish::check::served_names::ServedNames;
use crate::publish::check::served_rows::Rows;
use crate::publish::sample::{DIGESTED, SampleSize, digest};
use crate::settings::rounding::Rounding;

/// Rows of a weight that are looked at, and blocks in each of them.
const ROWS: usize = 4;
const BLOCKS: usize = 16;

/// How the weights of the model are stored: transposed or not.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    /// Whether the configuration has fan_in_fan_out set.
    set: bool,
    /// Layers that lie [out_features, in_features] although fan_in_fan_out is set, in a model of
    /// both kinds. PEFT resets the flag for an nn.Linear.
    exceptions: BTreeSet<&'a str>,
}

impl<'a> Layout<'a> {
    /// The layout that the configuration states, and the manifest where a model has both kinds.
    #[must_use]
    pub(crate) fn of(set: bool, manifest: Option<&'a ManifestClaims>) -> Self {
        let layers = manifest.map(|m| &m.layers[..]).unwrap_or_default();
        let both = layers.iter().any(|layer| layer.transposed);
        let linear = layers.iter().filter(|layer| both && !layer.transposed);
        Self {
            set,
            exceptions: linear.map(LayerClaim::served_as).collect(),
        }
    }

    /// Whether this module's weight should lie [in_features, out_features].
    fn is_transposed(&self, served: &str) -> bool {
        self.set && !self.exceptions.contains(served)
    }
}

/// The pairs of a form, under the names of the class that serves the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServedPairs<'a> {
    /// The name of their file in messages.
    pub(crate) file: &'a str,
    /// The pairs by module name.
    pub(crate) pairs: &'a BTreeMap<String, CheckedPair>,
}

/// Compares the shapes of the corrections with those of the model's weights.
pub(crate) fn check_shapes(
    model: &ServedModel,
    names: &ServedNames,
    layout: &Layout<'_>,
    served: ServedPairs<'_>,
    findings: &mut Findings,
) {
    let ServedPairs { file, pairs } = served;
    let path = model.path.display();
    for (name, pair) in pairs {
        let in_base = names.in_base(name);
        let (m, n) = (pair.in_features, pair.out_features);
        match model.weight(in_base) {
            ServedWeight::Stored(shape) => {
                let transposed = layout.is_transposed(name);
                let expected = if transposed { [m, n] } else { [n, m] };
                if shape != expected {
                    let set = if transposed { "" } else { "not " };
                    findings.problem(format!(
                        "{file}: {name}: A and B fit {expected:?} (fan_in_fan_out is {set}set), {path} has '{in_base}.weight' {shape:?}"
                    ));
                }
            }
            ServedWeight::Packed(stored) => findings.not_checked(format!(
                "{name}: its shape, {path} stores {stored} in the place of its weight"
            )),
            ServedWeight::Missing(known) => {
                let hint = known.map_or(String::new(), |known| format!("; it has '{known}'"));
                findings.problem(format!(
                    "{file}: {name}: {path} has no '{in_base}.weight'{hint}"
                ));
            }
        }
    }
}

/// Compares one of qera's adapters with the folder that it is served on.
pub(crate) fn check_base(
    model: &ServedModel,
    manifest: &ManifestClaims,
    layout: &Layout<'_>,
    findings: &mut Findings,
) {
    let path = model.path.display();
    let format = &manifest.settings.format;
    if format.is_given() && model.identity() == manifest.fingerprints.model {
        return findings.problem(format!(
            "{path}: is the model in full precision, the adapter corrects {}: it would do harm",
            manifest
                .quantized
                .as_ref()
                .map_or("a GGUF", |of| of.path.as_str())
        ));
    }
    match model.record() {
        Some(record) => {
            check_record(model, &record.base, manifest, findings);
            check_samples(model, record, manifest, layout, findings);
        }
        // The manifest has a digest of the whole file, so that nothing more is needed.
        None if model.is_gguf() && manifest.gguf_base.is_some() => {}
        None => match &manifest.settings.rounding {
            // Weights of the same grid that were rounded in another way pass every other test.
            Some(of) => findings.problem(format!(
                "{path}: has no {RECORD}: the adapter belongs on one W~ alone, which was rounded by {}, and nothing says that this is it",
                of.name
            )),
            None => findings.not_checked(format!(
                "{path}: whether it was made of the adapter's checkpoint, it has no {RECORD}"
            )),
        },
    }
    let quantizer = match format.grid() {
        Ok(grid) => grid,
        Err(error) => {
            findings.not_checked(format!(
                "{path}: whether it is quantized by {format}: {error}"
            ));
            return;
        }
    };
    let most = SampleSize {
        rows: ROWS,
        width: BLOCKS.saturating_mul(quantizer.block_size()),
    };
    for layer in manifest.layers.iter().filter(|layer| layer.gains()) {
        let transposed = layout.is_transposed(layer.served_as());
        let Some(rows) = model.sample(&layer.name, transposed, most) else {
            continue; // Its shape is said to be wrong, or not to be known.
        };
        if rows.in_features == layer.in_features && !is_quantized(quantizer, &rows) {
            findings.problem(format!(
                "{path}: '{}.weight' is not quantized by {format}: the correction would do harm",
                layer.name
            ));
        }
    }
}

fn check_record(
    model: &ServedModel,
    record: &Base,
    manifest: &ManifestClaims,
    findings: &mut Findings,
) {
    let path = model.path.display();
    let before = findings.problems_so_far();
    let quantizer = manifest.settings.format.to_string();
    if record.quantizer != quantizer {
        findings.problem(format!(
            "{path}: is quantized by {}, the adapter corrects {quantizer}",
            record.quantizer
        ));
    }
    check_rounding(model, record, manifest, findings);
    if record.checkpoint != manifest.fingerprints.checkpoint {
        findings.problem(format!(
            "{path}: was quantized from the weights {}, and the adapter corrects {}",
            record.checkpoint, manifest.fingerprints.checkpoint
        ));
    }
    let quantized: BTreeSet<&str> = record.layers.iter().map(String::as_str).collect();
    for layer in &manifest.layers {
        if !quantized.contains(layer.name.as_str()) {
            findings.problem(format!(
                "{path}: {} is not among its quantized layers",
                layer.name
            ));
        }
    }
    let found = record.fingerprint();
    if let Some(said) = &manifest.fingerprints.base
        && *said != found
        && findings.problems_so_far() == before
    {
        findings.problem(format!(
            "{path}: its fingerprint is {found}, the adapter belongs on {said}: tensors beside the quantized ones are others"
        ));
    }
}

/// Compares how W~ was rounded. For one grid and one checkpoint there is one W~ by nearest
/// rounding, but any other rounding gives one for each rank and each set of rows.
fn check_rounding(
    model: &ServedModel,
    record: &Base,
    manifest: &ManifestClaims,
    findings: &mut Findings,
) {
    let path = model.path.display();
    let nearest = Rounding::Nearest.name();
    let said = manifest.settings.rounding.as_ref();
    let said = said.map_or(nearest, |of| of.name.as_str());
    let found = rounding_of(record.rounded.as_ref());
    if found != said {
        findings.problem(format!(
            "{path}: was rounded by {found}, the adapter corrects weights that were rounded by {said}: it would do harm"
        ));
    } else if record.digest() != manifest.fingerprints.rounded.as_deref() {
        let none = "none";
        findings.problem(format!(
            "{path}: holds another W~ ({}) than the one that the adapter was made with ({}): it would do harm",
            record.digest().unwrap_or(none),
            manifest.fingerprints.rounded.as_deref().unwrap_or(none)
        ));
    }
}

/// Checks by samples of rows that the weights are those that the record was written for. Another W~
/// of the same grid looks just as quantized.
fn check_samples(
    model: &ServedModel,
    record: &BaseRecord,
    manifest: &ManifestClaims,
    layout: &Layout<'_>,
    findings: &mut Findings,
) {
    let path = model.path.display();
    for layer in &manifest.layers {
        let Some(said) = record.samples.get(&layer.name) else {
            continue;
        };
        let transposed = layout.is_transposed(layer.served_as());
        let found = model.sample(&layer.name, transposed, DIGESTED);
        if found.is_some_and(|rows| digest(&rows.values) != *said) {
            findings.problem(format!(
                "{path}: '{}.weight' is not the W~ that {RECORD} was written for: the correction would do harm",
                layer.name
            ));
        }
    }
}

/// Whether these values could be a W~ of this grid, however it was rounded.
fn is_quantized(grid: Grid, rows: &Rows) -> bool {
    grid.holds(&rows.values, rows.width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use qera_core::quantize::Mxint;

    fn rows(values: &[f32], width: usize) -> Rows {
        Rows {
            in_features: width,
            width,
            values: values.to_vec(),
        }
    }

    fn sines() -> Vec<f32> {
        (0..96).map(|i| (i as f32 * 0.7).sin() * 1.3).collect()
    }

    #[test]
    fn what_is_quantized_is_told_from_what_is_not() {
        let values = sines();
        for bits in 2..=8 {
            let grid = Grid::Mxint(Mxint::new(bits, 5).unwrap());
            let mut quantized = vec![0.0; 96];
            grid.quantize_dequantize(&values, 12, &mut quantized)
                .unwrap();
            assert!(is_quantized(grid, &rows(&quantized, 12)), "{bits}");
            assert!(!is_quantized(grid, &rows(&values, 12)), "{bits}");
            quantized[95] = f32::MIN_POSITIVE / 4.0;
            assert!(is_quantized(grid, &rows(&quantized, 12)), "{bits}");
            quantized[95] = f32::NAN;
            assert!(!is_quantized(grid, &rows(&quantized, 12)), "{bits}");
        }
    }

    /// A rounding that leaves a block's outer levels unused is still a W~ of the grid, although
    /// quantizing it again would change it.
    #[test]
    fn levels_that_another_rounding_chose_are_levels() {
        let values = sines();
        for options in [
            "quantizer = \"int3\"",
            "quantizer = \"int4\"\nzero-points = true\nscale-dtype = \"f32\"",
            "quantizer = \"q4-0\"",
        ] {
            let grid = Settings::from_toml(options).unwrap().weights.quantizer;
            let blocks = values.chunks(32).flat_map(|block| {
                let wider: Vec<f32> = block.iter().map(|x| 1.7 * x).collect();
                let levels = grid.candidates(&wider).first();
                block.iter().map(move |&x| levels.nearest(x))
            });
            let mut coarse: Vec<f32> = blocks.collect();
            let mut again = vec![0.0; 96];
            grid.quantize_dequantize(&coarse, 32, &mut again).unwrap();
            assert_ne!(again, coarse, "{options}: nearest levels are others");
            assert!(is_quantized(grid, &rows(&coarse, 32)), "{options}");
            assert!(!is_quantized(grid, &rows(&values, 32)), "{options}");
            coarse[40] *= 1.1;
            assert!(!is_quantized(grid, &rows(&coarse, 32)), "{options}");
        }
    }
}
