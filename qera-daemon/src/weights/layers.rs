//! A linear layer of a checkpoint: a 2-D tensor `NAME.weight`, stored [out_features, in_features]
//! or, by Conv1D, [in_features, out_features]. Every other module knows the layer by NAME.

use qera_core::dtype::{DecodeError, FloatDtype, decode_weights};
use qera_core::quantize::Grid;

use crate::error::Fatal;
use crate::formats::safetensors::header::float_dtype;
use crate::host::kernels::page_vec::PageVec;
use crate::settings::weights::WeightsSettings;
use crate::weights::checkpoint::{Checkpoint, Tensor, refuse};
use crate::weights::gguf::rows::RowOrder;
use crate::weights::linears::ListedLinear;
use crate::weights::passed_over::{PassedOver, Why};

/// Numbers that are quantized at a time, in whole rows.
const QUANTIZED: usize = 1 << 16;
/// Stored rows of a transposed weight that are decoded at a time.
const STRIP: usize = 16;
/// Numbers that are hashed at a time, and how many of them are then looked at in one go.
const HASHED: usize = 1 << 15;
const LOOKED_AT: usize = 1 << 10;
/// What to do about a weight that cannot be read.
const SKIP: &str = "--skip-broken leaves such layers out";
/// What follows the module's name in its tensor's.
const WEIGHT: &str = ".weight";

/// A linear layer to be corrected.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// Module path in the checkpoint.
    pub(crate) name: String,
    /// Module path in the class that serves it: the adapter's name.
    pub(crate) served_as: String,
    /// Whether the weight is stored [in_features, out_features].
    pub(crate) transposed: bool,
    /// Width of its input: m.
    pub(crate) in_features: usize,
    /// Width of its output: n.
    pub(crate) out_features: usize,
    /// Rank to solve for: what was asked, at most min(in_features, out_features).
    pub(crate) rank: usize,
    /// Rank asked for.
    pub(crate) rank_asked: usize,
    dtype: FloatDtype,
    tensor: Tensor,
}

/// What reading a weight once found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Examination {
    /// BLAKE3 of the stored bytes.
    pub(crate) bytes: blake3::Hash,
    /// The first value that is NaN or infinite.
    pub(crate) broken: Option<DecodeError>,
}

/// The place of a stored value that is not finite.
struct NotFinite {
    index: usize,
    value: f32,
}

/// The module whose weight a tensor is.
pub(crate) fn module_of(tensor: &str) -> Option<&str> {
    tensor.strip_suffix(WEIGHT)
}

/// The tensor that is a module's weight.
pub(crate) fn tensor_of(module: &str) -> String {
    format!("{module}{WEIGHT}")
}

/// What describes a layer beside its tensor's bytes.
#[derive(Debug)]
pub(crate) struct LayerForm<'a> {
    /// Module path in the checkpoint.
    pub(crate) name: &'a str,
    /// Its weight.
    pub(crate) tensor: &'a Tensor,
    /// Module path in the class that serves it.
    pub(crate) served_as: String,
    /// Whether the weight is stored [in_features, out_features].
    pub(crate) transposed: bool,
}

impl Layer {
    /// Makes a layer of a selected 2-D tensor.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] for a tensor that is empty, or not F32, F16 or BF16.
    pub(crate) fn describe(
        checkpoint: &Checkpoint,
        settings: &WeightsSettings,
        form: LayerForm<'_>,
    ) -> Result<Self, Fatal> {
        let LayerForm {
            name,
            tensor,
            served_as,
            transposed,
        } = form;
        let refuse = |reason| {
            refuse(
                checkpoint.file_of(tensor),
                format!("tensor '{name}.weight' {reason}"),
            )
        };
        let dtype = float_dtype(tensor.dtype).ok_or_else(|| {
            refuse(format!(
                "has dtype {}; F32, F16 and BF16 are read; {SKIP}",
                tensor.dtype
            ))
        })?;
        let [rows, columns] = [tensor.shape[0], tensor.shape[1]];
        let (out_features, in_features) = match transposed {
            true => (columns, rows),
            false => (rows, columns),
        };
        if in_features == 0 || out_features == 0 {
            return Err(refuse(format!("is empty: [{out_features}, {in_features}]")));
        }
        let rank_asked = settings.ranks.of(name);
        Ok(Self {
            name: name.to_owned(),
            served_as,
            transposed,
            in_features,
            out_features,
            rank: rank_asked.min(in_features).min(out_features),
            rank_asked,
            dtype,
            tensor: tensor.clone(),
        })
    }

    /// The layer as a tap describes it.
    #[must_use]
    pub(crate) const fn listed(&self) -> ListedLinear {
        ListedLinear {
            in_features: self.in_features,
            out_features: self.out_features,
            transposed: Some(self.transposed),
        }
    }

    /// The layer as one that is not corrected, for this reason.
    #[must_use]
    pub(crate) fn passed_over(&self, why: Why) -> PassedOver {
        PassedOver {
            tensor: tensor_of(&self.name),
            shape: self.tensor.shape.clone(),
            why,
        }
    }

    /// The type that the weight is stored in.
    pub(crate) const fn dtype(&self) -> FloatDtype {
        self.dtype
    }

    /// Decodes the weight: W (m x n) by columns.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] with file, tensor, row and column of the first NaN or infinite weight.
    pub(crate) fn decode(&self, checkpoint: &Checkpoint) -> Result<PageVec<f32>, Fatal> {
        let mut weight = PageVec::unwritten(self.in_features * self.out_features);
        let stored = self.stored(checkpoint);
        if self.transposed {
            self.decode_transposed(stored, &mut weight)
        } else if self.tensor.rows == RowOrder::AsTheyLie {
            // decode_weights treats the weight as one long row.
            let width = self.in_features;
            decode_weights(stored, self.dtype, &mut weight).map_err(|e| placed(e, 0, width))
        } else {
            self.decode_in_order(stored, &mut weight)
        }
        .map_err(|e| self.refuse(checkpoint, &e))?;
        Ok(weight)
    }

    /// Decodes a weight whose rows are stored in another order.
    fn decode_in_order(&self, stored: &[u8], weight: &mut [f32]) -> Result<(), DecodeError> {
        let m = self.in_features;
        let bytes = m * self.dtype.size_bytes();
        for (column, values) in weight.chunks_exact_mut(m).enumerate() {
            let row = self.tensor.rows.stored(column);
            let row_bytes = &stored[row * bytes..][..bytes];
            decode_weights(row_bytes, self.dtype, values).map_err(|e| placed(e, row, m))?;
        }
        Ok(())
    }

    /// Decodes a weight that is stored [in_features, out_features], some rows at a time.
    fn decode_transposed(&self, stored: &[u8], weight: &mut [f32]) -> Result<(), DecodeError> {
        let (m, n) = (self.in_features, self.out_features);
        let mut strip = vec![0.0; STRIP.min(m) * n];
        let strips = stored.chunks(STRIP * n * self.dtype.size_bytes());
        for (first, bytes) in (0..m).step_by(STRIP).zip(strips) {
            let height = STRIP.min(m - first);
            let strip = &mut strip[..height * n];
            decode_weights(bytes, self.dtype, strip).map_err(|e| placed(e, first, n))?;
            for (column, of) in weight.chunks_exact_mut(m).enumerate() {
                for (row, to) in of[first..first + height].iter_mut().enumerate() {
                    *to = strip[row * n + column];
                }
            }
        }
        Ok(())
    }

    /// Gives columns of W and of W~ to `each`, some at a time and in order.
    ///
    /// # Errors
    /// Any error of `each`. [`Fatal::Checkpoint`] for a NaN or infinite weight, which
    /// [`decode`](Self::decode) does not let through.
    pub(crate) fn quantize(
        &self,
        checkpoint: &Checkpoint,
        quantizer: &Grid,
        weight: &mut [f32],
        mut each: impl FnMut(&mut [f32], &[f32]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let columns = (QUANTIZED / self.in_features).max(1);
        let mut memory = vec![0.0; (columns * self.in_features).min(weight.len())];
        for piece in weight.chunks_mut(columns * self.in_features) {
            let quantized = &mut memory[..piece.len()];
            quantizer
                .quantize_dequantize(piece, self.in_features, quantized)
                .map_err(|e| self.refuse(checkpoint, &e))?;
            each(piece, quantized)?;
        }
        Ok(())
    }

    /// Reads the stored weight once: its fingerprint, and the first value that is NaN or infinite.
    pub(crate) fn examine(&self, checkpoint: &Checkpoint) -> Examination {
        let stored = self.stored(checkpoint);
        let size = self.dtype.size_bytes();
        let mut hasher = blake3::Hasher::new();
        let mut values = [0.0; LOOKED_AT];
        let mut broken = None;
        // The bytes that were just hashed are still in the cache.
        for (piece, bytes) in stored.chunks(HASHED * size).enumerate() {
            hasher.update(bytes);
            let mut parts = bytes.chunks(LOOKED_AT * size).enumerate();
            let found = parts.find_map(|(part, bytes)| {
                let values = &mut values[..bytes.len() / size];
                let error = decode_weights(bytes, self.dtype, values).err()?;
                let DecodeError::NonFinite { column, value, .. } = error else {
                    return None;
                };
                Some(NotFinite {
                    index: piece * HASHED + part * LOOKED_AT + column,
                    value,
                })
            });
            broken = broken.or(found);
        }
        let width = self.tensor.shape[1];
        Examination {
            bytes: hasher.finalize(),
            broken: broken.map(|NotFinite { index, value }| DecodeError::NonFinite {
                row: index / width,
                column: index % width,
                value,
            }),
        }
    }

    /// Name, type and shape in words, for a fingerprint.
    pub(crate) fn described(&self) -> String {
        let Tensor { dtype, shape, .. } = &self.tensor;
        format!("{}\0{dtype}\0{shape:?}\0", self.name)
    }

    /// The error that ends the run for a weight with a value that is not finite.
    pub(crate) fn broken(&self, checkpoint: &Checkpoint, error: DecodeError) -> Fatal {
        self.refuse(checkpoint, &format!("{error}; {SKIP}"))
    }

    fn stored<'c>(&self, checkpoint: &'c Checkpoint) -> &'c [u8] {
        checkpoint.bytes(&self.tensor)
    }

    fn refuse(&self, checkpoint: &Checkpoint, error: &dyn core::fmt::Display) -> Fatal {
        let reason = format!("tensor '{}.weight': {error}", self.name);
        refuse(checkpoint.file_of(&self.tensor), reason)
    }
}

/// The row and column of a value that was found in one long row. Its numbers begin with the
/// tensor's row `first`.
fn placed(error: DecodeError, first: usize, width: usize) -> DecodeError {
    match error {
        DecodeError::NonFinite { column, value, .. } => DecodeError::NonFinite {
            row: first + column / width,
            column: column % width,
            value,
        },
        other => other,
    }
}
