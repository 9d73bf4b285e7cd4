//! Inputs that are sketched instead of gathering their R, and the E that each sketch belongs to.
//!
//! A sketch summarises the output errors x E of a single E = W - W~. Another E needs another
//! sketch, while R serves every E.

use qera_core::packed::packed_len;
use serde::{Deserialize, Serialize};

use crate::host::output_sketch::{OutputSketch, SKETCH_ROWS};
use crate::weights::Weights;
use crate::weights::layers::Layer;

/// What a state records of its sketches: how large they are, and which E they belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SketchRecord {
    /// The size l of a sketch, of which l - 1 rows are kept.
    pub(crate) rows: usize,
    /// Fingerprint of the checkpoint with W.
    checkpoint: String,
    /// The format in which W~ is stored.
    quantizer: String,
    /// Fingerprint of W~, where the user gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quantized: Option<String>,
}

/// The sketches of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SiteSketch {
    /// How many rows each sketch keeps: l - 1.
    pub(crate) kept: usize,
    /// The layers, in the order of the site.
    pub(crate) layers: Vec<SketchedLayer>,
}

/// A layer that has a sketch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SketchedLayer {
    /// Module path.
    pub(crate) name: String,
    /// How many numbers a row of the sketch has.
    pub(crate) out_features: usize,
}

impl SketchRecord {
    /// The record of sketches of size l = `rows` of the errors of these weights.
    #[must_use]
    pub(crate) fn new(rows: usize, weights: &Weights) -> Self {
        Self {
            rows,
            checkpoint: weights.identity().to_owned(),
            quantizer: weights.format().to_string(),
            quantized: weights.given().map(|of| of.given.fingerprint.clone()),
        }
    }

    /// Why the sketches do not serve these weights; `None` where they do.
    #[must_use]
    pub(crate) fn differs_from(&self, weights: &Weights) -> Option<String> {
        let own = Self::new(self.rows, weights);
        if self.checkpoint != own.checkpoint {
            return Some("of another checkpoint".into());
        }
        if self.quantizer != own.quantizer {
            let (then, now) = (&self.quantizer, own.quantizer);
            return Some(format!("of W~ in {then}, this run's is in {now}"));
        }
        (self.quantized != own.quantized).then(|| "of another --quantized file".into())
    }
}

impl SiteSketch {
    /// Sketches that keep this many rows for each of these layers.
    pub(crate) fn new(kept: usize, layers: &[&Layer]) -> Self {
        let layers = layers.iter().map(|layer| SketchedLayer {
            name: layer.name.clone(),
            out_features: layer.out_features,
        });
        Self {
            kept,
            layers: layers.collect(),
        }
    }

    /// The layers' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.layers.iter().map(|layer| layer.name.clone())
    }

    /// Bytes of the sketches and of the rows that wait for them, at this many bytes a number.
    #[must_use]
    pub(crate) fn bytes(&self, in_features: usize, number_bytes: usize) -> u64 {
        let widths = self.layers.iter().map(|layer| layer.out_features);
        let rows = widths.map(|n| OutputSketch::bytes(self.kept, n));
        rows.sum::<u64>() + (SKETCH_ROWS * in_features * number_bytes) as u64
    }

    /// Bytes needed while rows are folded: E of the widest layer, and the memory of a shrink.
    #[must_use]
    pub(crate) fn fold_bytes(&self, in_features: usize) -> u64 {
        let of = |layer: &SketchedLayer| {
            let (m, n) = (in_features, layer.out_features);
            size_of::<f32>() * m * n + OutputSketch::fold_bytes(m, n, self.kept)
        };
        self.layers.iter().map(of).max().unwrap_or_default() as u64
    }

    /// About how many operations a row takes.
    #[must_use]
    pub(crate) fn row_flops(&self, in_features: usize) -> f64 {
        let widths = self.layers.iter().map(|layer| layer.out_features);
        let of = |n| OutputSketch::row_flops(in_features, n, self.kept);
        widths.map(of).sum()
    }

    /// Whether the sketches take less memory than R. This follows from the widths alone.
    pub(crate) fn is_smaller(&self, in_features: usize) -> bool {
        self.bytes(in_features, size_of::<f32>())
            < (size_of::<f64>() * packed_len(in_features)) as u64
    }
}
