//! Sampled rows of a weight: evenly spaced, each from its beginning. They are enough to tell one W~
//! of a grid from another without reading them whole, since two such W~ differ in a tenth of their
//! codes or more.

use crate::error::Fatal;
use crate::weights::Weights;

/// How much of a weight is read at most. A weight that is stored transposed is read across its
/// pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SampleSize {
    /// The number of rows.
    pub(crate) rows: usize,
    /// How many numbers of each row.
    pub(crate) width: usize,
}

/// The sample whose digest a base's record holds.
pub(crate) const DIGESTED: SampleSize = SampleSize {
    rows: 8,
    width: 512,
};

impl SampleSize {
    /// The indices of the sampled rows of a weight with this many outputs.
    pub(crate) fn rows_of(self, outputs: usize) -> impl Iterator<Item = usize> {
        let count = self.rows.min(outputs);
        (0..count).map(move |k| k * outputs / count)
    }
}

/// BLAKE3 of the numbers, row after row.
#[must_use]
pub(crate) fn digest(values: &[f32]) -> String {
    let mut hasher = blake3::Hasher::new();
    for value in values {
        hasher.update(&value.to_le_bytes());
    }
    format!("blake3:{}", hasher.finalize().to_hex())
}

/// The digest of a sample of a layer's W~.
///
/// # Errors
/// [`Fatal`] where W~ cannot be had.
pub(crate) fn digest_of_layer(weights: &Weights, layer: usize) -> Result<String, Fatal> {
    let of = &weights.layers()[layer];
    let (m, width) = (of.in_features, DIGESTED.width.min(of.in_features));
    let mut wanted = DIGESTED.rows_of(of.out_features).peekable();
    let (mut row, mut values) = (0, Vec::new());
    weights.quantized(layer, |columns| {
        for column in columns.chunks_exact(m) {
            if wanted.next_if_eq(&row).is_some() {
                values.extend_from_slice(&column[..width]);
            }
            row += 1;
        }
        Ok(())
    })?;
    Ok(digest(&values))
}
