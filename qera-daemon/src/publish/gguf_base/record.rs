//! What is known of a GGUF base; it stands in the base's record and in every manifest.

use serde::{Deserialize, Serialize};

use crate::error::Fatal;
use crate::observe::run_events::GgufBaseWritten;
use crate::publish::gguf_base::layout::{GgufFigures, GgufLayout};
use crate::publish::packed_base::layout::WholeLayer;
use crate::weights::Weights;

/// The record of a GGUF base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GgufRecord {
    /// The sizes of the file.
    #[serde(flatten)]
    pub(crate) figures: GgufFigures,
    /// Selected layers whose W~ is stored as numbers.
    pub(crate) whole: Vec<WholeLayer>,
    /// BLAKE3 of the file.
    pub(crate) blake3: String,
}

impl GgufRecord {
    /// The record of a base that was written.
    ///
    /// # Errors
    /// The record cannot be made, as for [`GgufLayout::figures`].
    pub(crate) fn new(
        weights: &Weights,
        layout: &GgufLayout,
        blake3: String,
    ) -> Result<Self, Fatal> {
        Ok(Self {
            figures: layout.figures(weights)?,
            whole: layout.whole(weights),
            blake3,
        })
    }

    /// The event that the base is in its place.
    #[must_use]
    pub(crate) fn written(&self, path: String) -> GgufBaseWritten {
        let GgufFigures {
            types,
            bits_per_weight,
            bits_per_parameter,
            bytes,
        } = self.figures.clone();
        GgufBaseWritten {
            path,
            types,
            bits_per_weight,
            bits_per_parameter,
            bytes,
        }
    }

    /// The text for a person who finds the file.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let GgufFigures {
            types,
            bits_per_weight,
            bits_per_parameter,
            ..
        } = &self.figures;
        let types = types
            .iter()
            .map(|(name, layers)| format!("{layers} in {name}"));
        let types = types.collect::<Vec<_>>().join(", ");
        let whole = self.whole.iter();
        let whole: String = whole
            .map(|of| format!("- `{}`: {}\n", of.layer, of.reason))
            .collect();
        let whole = match whole.is_empty() {
            true => whole,
            false => format!("\nLayers whose W~ stands as numbers (BF16):\n\n{whole}"),
        };
        format!(
            "## GGUF

`model.gguf` is the checkpoint with W~ in the place of the layers' weights: {types}; {bits_per_weight:.2} bits a weight
with their scales, {bits_per_parameter:.2} bits a number of the whole model. Scale times code is W~ exactly, and every block was read
back before the file took its place. Metadata and all other tensors are the checkpoint's.
{whole}"
        )
    }
}
