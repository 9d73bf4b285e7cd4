//! Checks that a written GGUF base decodes to W~, block by block, before anyone sees the file.

use std::path::Path;

use crate::disk::mapping::Mapping;
use crate::error::Fatal;
use crate::formats::gguf::block_type::BlockType;
use crate::formats::gguf::blocks::decode;
use crate::formats::gguf::header::{GgufHeader, TensorClaim};
use crate::publish::gguf_base::blocks::are_equal;
use crate::publish::gguf_base::layout::source_of;
use crate::weights::Weights;
use crate::weights::checkpoint::refuse;
use crate::weights::gguf::rows::RowOrder;

/// Compares every layer of a file with W~.
///
/// # Errors
/// [`Fatal::Io`]; [`Fatal::Checkpoint`] for a file that is no GGUF; [`Fatal::Solve`] naming a layer
/// whose numbers differ.
pub(crate) fn reread(path: &Path, weights: &Weights) -> Result<(), Fatal> {
    let file = Mapping::open(path).map_err(Fatal::io(path, "read again"))?;
    let header = GgufHeader::parse(&file).map_err(|e| refuse(path, e.to_string()))?;
    for tensor in &source_of(weights)?.tensors {
        let known = tensor.known;
        let Some((known, layer)) = known.and_then(|of| Some((of, weights.layer_of(of.name)?)))
        else {
            continue;
        };
        let claim = header
            .tensors
            .iter()
            .find(|claim| claim.name == tensor.name);
        let stored = claim.and_then(|claim| WrittenLayer::of(claim, &file, known.rows));
        let written = stored
            .ok_or_else(|| refuse(path, format!("tensor '{}' was not written", tensor.name)))?;
        written.check(weights, layer)?;
    }
    Ok(())
}

/// The written tensor of a layer.
struct WrittenLayer<'a> {
    of: BlockType,
    bytes: &'a [u8],
    rows: RowOrder,
}

impl<'a> WrittenLayer<'a> {
    fn of(claim: &TensorClaim, file: &'a [u8], rows: RowOrder) -> Option<Self> {
        let start = usize::try_from(claim.start).ok()?;
        Some(Self {
            of: BlockType::of(claim.type_number).ok()?,
            bytes: file.get(start..)?.get(..claim.bytes?)?,
            rows,
        })
    }

    fn check(&self, weights: &Weights, layer: usize) -> Result<(), Fatal> {
        let own = &weights.layers()[layer];
        let row_bytes = self.bytes.len() / own.out_features;
        let mut read = vec![0.0; own.in_features];
        let mut row = 0;
        weights.quantized(layer, |piece| {
            for values in piece.chunks_exact(own.in_features) {
                let bytes = &self.bytes[self.rows.stored(row) * row_bytes..][..row_bytes];
                let decoded = decode(self.of, bytes, &mut read);
                if decoded.is_err() || !are_equal(values, &read) {
                    return Err(Fatal::Solve {
                        layer: own.name.clone(),
                        reason: ReadsOtherwise { row, of: self.of }.into(),
                    });
                }
                row += 1;
            }
            Ok(())
        })
    }
}

/// The error for a row that reads back as other numbers.
#[derive(Debug, thiserror::Error)]
#[error(
    "row {row} of W~ reads back as other numbers from {of} (this is a defect, please report it)"
)]
struct ReadsOtherwise {
    row: usize,
    of: BlockType,
}
