//! W~ of a layer in a given GGUF: which tensor it is, by the family's names and row orders, and its
//! numbers as an engine serves them.

use std::path::Path;
use std::sync::Arc;

use crate::error::Fatal;
use crate::formats::gguf::block_type::BlockType;
use crate::formats::gguf::blocks::{BlockError, decode};
use crate::weights::checkpoint::refuse;
use crate::weights::decode_check::MOST_ERROR;
use crate::weights::gguf::family::GgufLayer;
use crate::weights::gguf::file::{GgufModel, GgufTensor, scale_name};
use crate::weights::gguf::rows::RowOrder;
use crate::weights::given::placed::Placed;
use crate::weights::layers::Layer;
use crate::weights::passed_over::Why;

/// A part of the names of a block's feed-forward layers.
const FEED_FORWARD: &str = ".ffn_";

/// W~ of one layer.
#[derive(Debug, Clone)]
pub(crate) struct GgufWeight {
    /// The tensor's name.
    pub(crate) name: String,
    /// The type of the tensor's blocks.
    pub(crate) block_type: BlockType,
    model: Arc<GgufModel>,
    tensor: GgufTensor,
    rows: RowOrder,
    /// A factor for the whole tensor, which is stored beside it.
    scale: Option<f32>,
}

impl GgufWeight {
    /// Finds W~ of a layer.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming file, tensor and numbers: another shape, rows whose order is
    /// not known, a factor beside it that is none.
    pub(crate) fn find(model: &Arc<GgufModel>, layer: &Layer) -> Result<Placed<Self>, Fatal> {
        let place = model.family.tensor_of(&layer.name);
        let place = place.filter(|of| model.tensors.contains_key(&of.tensor));
        let Some(place) = place else {
            return Ok(Placed::LeftOut(Why::NotGiven));
        };
        let tensor = &model.tensors[&place.tensor];
        let Ok(block_type) = tensor.block_type() else {
            return Ok(Placed::LeftOut(Why::GivenAsUnknownType(tensor.type_number)));
        };
        let rows = row_order(model, layer, &place, tensor)?;
        let scale = scale_of(model, &place.tensor)?;
        // llama.cpp multiplies the adapter of such a layer by the factor, too, and refuses NVFP4
        // with an adapter.
        let scaled = scale.is_some_and(|scale| scale.to_bits() != 1.0_f32.to_bits());
        if scaled && place.tensor.contains(FEED_FORWARD) {
            return Ok(Placed::LeftOut(Why::GivenScaled));
        }
        Ok(Placed::Here(Self {
            name: place.tensor,
            block_type,
            model: Arc::clone(model),
            tensor: tensor.clone(),
            rows,
            scale,
        }))
    }

    /// Width of its input.
    #[must_use]
    pub(crate) fn in_features(&self) -> usize {
        self.tensor.ne[0]
    }

    /// Width of its output.
    #[must_use]
    pub(crate) fn out_features(&self) -> usize {
        self.tensor.ne[1]
    }

    /// The number of bytes that it takes.
    #[must_use]
    pub(crate) fn stored_bytes(&self) -> usize {
        self.model.bytes(&self.tensor).map_or(0, <[u8]>::len)
    }

    /// The order of its rows.
    #[must_use]
    pub(crate) const fn rows(&self) -> RowOrder {
        self.rows
    }

    /// The file that holds it.
    #[must_use]
    pub(crate) fn file(&self) -> &Path {
        self.model.file_of(&self.tensor)
    }

    /// The same tensor with its rows taken in the order in which they lie; `None` where that is
    /// their order anyway.
    #[must_use]
    pub(crate) fn as_it_lies(&self) -> Option<Self> {
        (self.rows != RowOrder::AsTheyLie).then(|| Self {
            rows: RowOrder::AsTheyLie,
            ..self.clone()
        })
    }

    /// The name of the model's architecture in GGUF.
    #[must_use]
    pub(crate) fn architecture(&self) -> &'static str {
        self.model.family.architecture()
    }

    /// Reads columns of W~ from `first` on, as many as `values` holds.
    ///
    /// # Errors
    /// [`BlockError`] for a block that is NaN or infinite.
    pub(crate) fn columns(&self, first: usize, values: &mut [f32]) -> Result<(), BlockError> {
        let m = self.in_features();
        let bytes = self.model.bytes(&self.tensor).unwrap_or_default();
        let blocks = m / self.block_type.block_len();
        let row_bytes = blocks * self.block_type.block_bytes();
        for (column, values) in values.chunks_exact_mut(m).enumerate() {
            let row = self.rows.stored(first + column);
            let bytes = &bytes[row * row_bytes..][..row_bytes];
            decode(self.block_type, bytes, values).map_err(|e| placed(e, row * blocks))?;
        }
        if let Some(scale) = self.scale {
            values.iter_mut().for_each(|value| *value *= scale);
        }
        Ok(())
    }
}

/// The order of the rows of a layer's tensor.
fn row_order(
    model: &GgufModel,
    layer: &Layer,
    place: &GgufLayer,
    tensor: &GgufTensor,
) -> Result<RowOrder, Fatal> {
    let refuse = |reason: String| {
        let reason = format!("tensor '{}': {reason}", place.tensor);
        refuse(model.file_of(tensor), reason)
    };
    let (m, n) = (layer.in_features, layer.out_features);
    if tensor.ne != [m, n] {
        return Err(refuse(format!(
            "has the lengths {:?}, the weight of '{}' in the checkpoint has {:?} in this order: \
             another model",
            tensor.ne,
            layer.name,
            [m, n]
        )));
    }
    let rows = RowOrder::new(place.rows, &model.heads, place.block, n);
    rows.map_err(|e| refuse(e.to_string()))
}

/// The factor beside a tensor, by which the engine multiplies the tensor's product.
fn scale_of(model: &GgufModel, name: &str) -> Result<Option<f32>, Fatal> {
    let beside = scale_name(name);
    let Some(tensor) = model.scale_beside(name) else {
        return Ok(None);
    };
    let refuse = |reason: String| {
        let reason = format!("tensor '{beside}': {reason}");
        refuse(model.file_of(tensor), reason)
    };
    let single = tensor.ne.iter().all(|&length| length == 1);
    let bytes = model.bytes(tensor).unwrap_or_default();
    let mut value = [0.0];
    let decoded = match tensor.block_type() {
        Ok(BlockType::F32) if single => decode(BlockType::F32, bytes, &mut value),
        _ => {
            return Err(refuse(format!(
                "is no single F32 that a weight is multiplied by: lengths {:?}, type {}",
                tensor.ne, tensor.type_number
            )));
        }
    };
    decoded.map_err(|e| refuse(e.to_string()))?;
    Ok(Some(value[0]))
}

/// The error, counted from the tensor's beginning: `before` blocks lie before those that were
/// decoded.
fn placed(error: BlockError, before: usize) -> BlockError {
    match error {
        BlockError::NotFinite { block, value } => BlockError::NotFinite {
            block: before + block,
            value,
        },
        other => other,
    }
}

/// About twice the largest relative error that was measured for a type: on SmolLM2's weights, on
/// normal numbers and on Student-t ones of 4 degrees, rounded by ggml with and without importance.
/// (Q8_0 .008, Q6_K .025, 5 bits .059, 4 bits .13, 3 bits .26, 2 bits .46, IQ1 .62, ternary .83.)
#[must_use]
pub(crate) const fn most_left(of: BlockType) -> f64 {
    use BlockType as T;
    match of {
        // The checkpoint may itself be rounded to bf16.
        T::F32 | T::F16 | T::BF16 => 8e-3,
        T::Q8_0 => 0.02,
        T::Q6_K => 0.05,
        T::Q5_0 | T::Q5_1 | T::Q5_K => 0.12,
        T::Q4_0 | T::Q4_1 | T::Q4_K | T::IQ4_NL | T::IQ4_XS | T::MXFP4 | T::NVFP4 => 0.26,
        T::Q3_K | T::IQ3_S | T::IQ3_XXS => 0.52,
        T::Q2_K | T::IQ2_XXS | T::IQ2_XS | T::IQ2_S => 0.9,
        T::IQ1_S | T::IQ1_M | T::TQ1_0 | T::TQ2_0 | T::Q1_0 | T::Q2_0 => MOST_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_type_leaves_goes_by_its_bits() {
        assert!((0.0054..0.05).contains(&most_left(BlockType::Q8_0)));
        assert!((0.12..0.3).contains(&most_left(BlockType::Q4_K)));
        assert!(most_left(BlockType::TQ1_0) > 0.82);
        let least = BlockType::ALL.map(most_left);
        assert!(least.iter().all(|most| *most > 0.0 && *most <= MOST_ERROR));
    }
}
