//! What is known of a GGUF with W~, in its record and in every manifest.

use serde::{Deserialize, Serialize};

use crate::error::Fatal;
use crate::observe::run_events::GgufBaseWritten;
use crate::publish::gguf_base::layout::{GgufFigures, GgufLayout};
use crate::publish::packed_base::layout::WholeLayer;
use crate::weights::Weights;

/// Of a base that is a GGUF.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GgufRecord {
    /// What the file takes.
    #[serde(flatten)]
    pub(crate) figures: GgufFigures,
    /// Selected layers whose W~ stands there as numbers.
    pub(crate) whole: Vec<WholeLayer>,
    /// BLAKE3 of the file.
    pub(crate) blake3: String,
}

impl GgufRecord {
    /// Of what was written.
    ///
    /// # Errors
    /// As for [`GgufLayout::figures`].
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

    /// As the event of a base in its place.
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

    /// What a person reads beside the file.
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
