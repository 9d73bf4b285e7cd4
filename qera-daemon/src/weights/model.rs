//! The whole model with W~ in place of the selected weights, in bf16, one tensor after another.
//! MXINT values of up to 8 bits are exact in bf16.

use half::{bf16, f16};
use qera_core::dtype::FloatDtype;
use safetensors::Dtype;

use crate::error::Fatal;
use crate::formats::safetensors::header::{encode, float_dtype};
use crate::formats::safetensors::writer::TensorPlan;
use crate::weights::Weights;
use crate::weights::checkpoint::Tensor;

/// Elements converted at a time.
const PIECE: usize = 1 << 20;

/// A tensor of the model.
#[derive(Debug)]
pub(crate) struct ModelTensor<'a> {
    /// Name, type and shape of what is given.
    pub(crate) plan: TensorPlan,
    tensor: &'a Tensor,
    /// The layer whose weight it is.
    layer: Option<usize>,
}

impl Weights {
    /// The tensors of the model, in the order of their names.
    #[must_use]
    pub(crate) fn model(&self) -> Vec<ModelTensor<'_>> {
        let tensors = self.checkpoint.tensors.iter();
        let described = tensors.map(|(name, tensor)| ModelTensor {
            plan: TensorPlan {
                name: name.clone(),
                dtype: match float_dtype(tensor.dtype) {
                    Some(_) => Dtype::BF16,
                    None => tensor.dtype,
                },
                shape: tensor.shape.clone(),
            },
            tensor,
            layer: self.layer_of(name),
        });
        described.collect()
    }

    /// Gives the bytes of a tensor of the model a piece at a time: W~ where a layer owns it.
    ///
    /// # Errors
    /// What `put` returns; [`Fatal::Checkpoint`] for a layer's weight that is NaN or infinite.
    pub(crate) fn model_bytes(
        &self,
        of: &ModelTensor<'_>,
        mut put: impl FnMut(&[u8]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        if let Some(layer) = of.layer {
            return self.quantized(layer, |piece| put(&encode(piece, FloatDtype::Bf16)));
        }
        // What stays as it is: its values are not qera's business, masks may hold infinities.
        let bytes = self.checkpoint.bytes(of.tensor);
        let mut rounded = |values: &mut dyn Iterator<Item = f32>| {
            let values = values.flat_map(|v| bf16::from_f32(v).to_le_bytes());
            put(&values.collect::<Vec<_>>())
        };
        match float_dtype(of.tensor.dtype) {
            None | Some(FloatDtype::Bf16) => put(bytes),
            Some(FloatDtype::F32) => bytes.chunks(4 * PIECE).try_for_each(|piece| {
                let values = piece.as_chunks::<4>().0.iter();
                rounded(&mut values.map(|b| f32::from_le_bytes(*b)))
            }),
            Some(FloatDtype::F16) => bytes.chunks(2 * PIECE).try_for_each(|piece| {
                let values = piece.as_chunks::<2>().0.iter();
                rounded(&mut values.map(|b| f16::from_le_bytes(*b).to_f32()))
            }),
        }
    }
}
