//! The whole model with W~ in place of the selected weights, tensor by tensor. All other tensors
//! keep their type and their bits.

use qera_core::dtype::FloatDtype;

use crate::error::Fatal;
use crate::formats::safetensors::header::{are_exact, dtype_name, encode};
use crate::formats::safetensors::writer::TensorPlan;
use crate::host::kernels::page_vec::PageVec;
use crate::weights::Weights;
use crate::weights::checkpoint::Tensor;

/// Rows of a transposed weight that are stored at a time.
const STRIP: usize = 16;

/// A tensor of the model.
#[derive(Debug)]
pub(crate) struct ModelTensor<'a> {
    /// Name, type and shape of what will be written.
    pub(crate) plan: TensorPlan,
    tensor: &'a Tensor,
    /// The layer whose weight this is.
    quantized: Option<QuantizedTensor>,
}

/// W~ of a layer, and the type in which it is stored.
#[derive(Debug, Clone, Copy)]
struct QuantizedTensor {
    layer: usize,
    dtype: FloatDtype,
}

impl Weights {
    /// The tensors of the model in the order of their names, without the weights of layers that are
    /// `left_out`. Every W~ is made once, to see which type can hold it.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] for a layer's weight that is NaN or infinite.
    pub(crate) fn model(
        &self,
        left_out: impl Fn(usize) -> bool,
    ) -> Result<Vec<ModelTensor<'_>>, Fatal> {
        let tensors = self.checkpoint.tensors.iter();
        let tensors = tensors.filter(|(name, _)| !self.layer_of(name).is_some_and(&left_out));
        let described = tensors.map(|(name, tensor)| {
            let quantized = self.layer_of(name).map(|layer| {
                let dtype = self.dtype_of_quantized(layer)?;
                Ok(QuantizedTensor { layer, dtype })
            });
            let quantized = quantized.transpose()?;
            Ok(ModelTensor {
                plan: TensorPlan {
                    name: name.clone(),
                    dtype: quantized.map_or(tensor.dtype, |of| dtype_name(of.dtype)),
                    shape: tensor.shape.clone(),
                },
                tensor,
                quantized,
            })
        });
        described.collect()
    }

    /// The type in which W~ is stored: that of the tensor which it replaces if this holds every
    /// value, otherwise f32.
    ///
    /// MXINT rounded to nearest fits the type of its values: a value needs 7 bits, and its last bit
    /// is no smaller than the smallest number of bf16, nor, for a weight in f16, than that of f16.
    /// Multiples of a free scale need the scale's bits and their own, more than f16 and bf16 have.
    /// So an int or q4-0 base is f32, except with two bits in a scale of the weight's type. This is
    /// tested and not deduced: a W~ that is rounded once more is not the one that the adapter
    /// corrects.
    fn dtype_of_quantized(&self, layer: usize) -> Result<FloatDtype, Fatal> {
        let dtype = self.layers()[layer].dtype();
        if dtype == FloatDtype::F32 {
            return Ok(dtype);
        }
        let mut exact = true;
        self.quantized(layer, |piece| {
            exact &= are_exact(piece, dtype);
            Ok(())
        })?;
        Ok(if exact { dtype } else { FloatDtype::F32 })
    }

    /// Gives the bytes of a tensor of the model to `put`, a piece at a time: those of W~ for a
    /// layer's weight.
    ///
    /// # Errors
    /// Any error of `put`; [`Fatal::Checkpoint`] for a layer's weight that is NaN or infinite.
    pub(crate) fn model_bytes(
        &self,
        of: &ModelTensor<'_>,
        put: impl FnMut(&[u8]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        match of.quantized {
            Some(quantized) => self.put_quantized(quantized, put),
            // The values of other tensors are not qera's business: masks may hold infinities.
            None => [self.checkpoint.bytes(of.tensor)]
                .into_iter()
                .try_for_each(put),
        }
    }

    /// Writes W~ in the place of W. This is the only place where W~ becomes bytes.
    fn put_quantized(
        &self,
        of: QuantizedTensor,
        mut put: impl FnMut(&[u8]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let layer = &self.layers()[of.layer];
        if !layer.transposed {
            return self.quantized(of.layer, |piece| put(&encode(piece, of.dtype)));
        }
        let (m, n) = (layer.in_features, layer.out_features);
        let mut columns = PageVec::zeroed(m * n);
        let mut filled = 0;
        self.quantized(of.layer, |piece| {
            columns[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
            Ok(())
        })?;
        let mut strip = vec![0.0; STRIP.min(m) * n];
        for first in (0..m).step_by(STRIP) {
            let height = STRIP.min(m - first);
            for (j, column) in columns.chunks_exact(m).enumerate() {
                for (row, value) in column[first..first + height].iter().enumerate() {
                    strip[row * n + j] = *value;
                }
            }
            put(&encode(&strip[..height * n], of.dtype))?;
        }
        Ok(())
    }
}
