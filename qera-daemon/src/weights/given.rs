//! W~ that the user gave (`--quantized`): which tensor of it is W~ of a layer, its numbers as the
//! engine serves them, and whether they are those of this W.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::error::Fatal;
use crate::formats::gguf::block_type::BlockType;
use crate::formats::gguf::blocks::{BlockError, decode};
use crate::formats::model_config::ModelConfig;
use crate::host::cores::Cores;
use crate::host::kernels::page_vec::PageVec;
use crate::weights::checkpoint::refuse;
use crate::weights::decode_check::{DecodeCheck, DecodeSums, most_left};
use crate::weights::gguf::family::GgufLayer;
use crate::weights::gguf::file::{GgufModel, GgufTensor, scale_name};
use crate::weights::gguf::rows::RowOrder;
use crate::weights::layers::Layer;
use crate::weights::passed_over::Why;

/// Numbers that are decoded at a time, in whole rows.
const DECODED: usize = 1 << 16;
/// What is in the names of a block's feed-forward layers.
const FEED_FORWARD: &str = ".ffn_";
/// What to do about a tensor that cannot serve.
const SKIP: &str = "--skip-broken leaves such layers out";

/// The quantized model.
#[derive(Debug)]
pub(crate) struct GivenModel {
    model: GgufModel,
    /// Which file it is: BLAKE3 of all tensors.
    pub(crate) fingerprint: String,
}

/// W~ of one layer.
#[derive(Debug, Clone)]
pub(crate) struct GivenTensor {
    /// The tensor's name.
    pub(crate) name: String,
    /// Its type.
    pub(crate) block_type: BlockType,
    tensor: GgufTensor,
    rows: RowOrder,
    /// A factor of the whole tensor that is stored beside it.
    scale: Option<f32>,
}

/// W~ of one layer, and how far it is from W.
#[derive(Debug, Clone)]
pub(crate) struct GivenLayer {
    /// W~.
    pub(crate) tensor: GivenTensor,
    /// How far it is.
    pub(crate) check: DecodeCheck,
}

/// W~ of a layer as it was read, for manifest and plan.
#[derive(Debug, Serialize)]
pub(crate) struct ReadTensor {
    /// Its name in the file.
    tensor: String,
    /// ggml's name of its type.
    #[serde(rename = "type")]
    block_type: &'static str,
    /// How far it is from W.
    #[serde(flatten)]
    check: DecodeCheck,
}

impl GivenLayer {
    /// As it was read.
    #[must_use]
    pub(crate) fn described(&self) -> ReadTensor {
        ReadTensor {
            tensor: self.tensor.name.clone(),
            block_type: self.tensor.block_type.name(),
            check: self.check,
        }
    }
}

impl GivenLayer {
    /// How far it is, beside what its type leaves.
    #[must_use]
    pub(crate) fn far(&self) -> String {
        let GivenTensor {
            name, block_type, ..
        } = &self.tensor;
        format!(
            "'{name}': relative error {:.2e}, {} leaves {:.0e} at most",
            self.check.relative_error,
            block_type.name(),
            most_left(*block_type)
        )
    }
}

impl ReadTensor {
    /// What stands over the columns of [`row`](Self::row).
    #[must_use]
    pub(crate) fn heading() -> String {
        format!(
            "{:<52} {:>8} {:>12} {:>12}",
            "tensor of the quantized file", "type", "rel. error", "correlation"
        )
    }

    /// A line of a table.
    #[must_use]
    pub(crate) fn row(&self) -> String {
        let Self {
            tensor,
            block_type,
            check:
                DecodeCheck {
                    relative_error,
                    correlation,
                    ..
                },
        } = self;
        format!("{tensor:<52} {block_type:>8} {relative_error:>12.4} {correlation:>12.4}")
    }
}

/// W~ of the selected layers.
#[derive(Debug)]
pub(crate) struct GivenLayers {
    /// Where it is read.
    pub(crate) given: Arc<GivenModel>,
    /// Of each layer.
    pub(crate) layers: Vec<GivenLayer>,
}

impl GivenLayers {
    /// Those that are farther from W than their types leave.
    pub(crate) fn far(&self) -> impl Iterator<Item = &GivenLayer> {
        let layers = self.layers.iter();
        layers.filter(|of| of.check.is_far(of.tensor.block_type))
    }

    /// Refuses a file of which most is farther from W than its types leave.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the first of them.
    pub(crate) fn refuse_far(&self) -> Result<(), Fatal> {
        let count = self.far().count();
        let Some(first) = self.far().next().filter(|_| 2 * count > self.layers.len()) else {
            return Ok(());
        };
        let reason = format!(
            "{count} of its {} layers are farther from the checkpoint's weights than their types \
             leave ({}): it is of another version of the model, fine-tuned perhaps, and an adapter \
             would take off what the two differ by; give the checkpoint that it was made from",
            self.layers.len(),
            first.far()
        );
        Err(refuse(self.given.path(), reason))
    }

    /// Shows W~ of a layer, as [`GivenModel::pieces`] does.
    ///
    /// # Errors
    /// What `each` returns, and as for [`GivenModel::pieces`].
    pub(crate) fn pieces(
        &self,
        layer: usize,
        each: impl FnMut(usize, &[f32]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        self.given.pieces(&self.layers[layer].tensor, each)
    }
}

/// What became of a layer's W~.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// It is there, and of this W.
    Here(GivenLayer),
    /// The layer is left out.
    LeftOut(Why),
}

/// How a layer is compared with its W~.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparing<'a> {
    /// Whether one that cannot serve is left out instead of refused.
    pub(crate) skip_broken: bool,
    /// Who decodes.
    pub(crate) cores: &'a Cores,
}

/// Some columns of W, and what came of comparing them with those of W~.
struct Compared<'a> {
    first: usize,
    original: &'a [f32],
    sums: Result<DecodeSums, BlockError>,
}

impl GivenModel {
    /// Opens what `--quantized` names, beside a checkpoint of this configuration.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the file: as for [`GgufModel::open`], and a model of another
    /// architecture.
    pub(crate) fn open(path: &Path, config: &ModelConfig) -> Result<Self, Fatal> {
        let parts = config.parts();
        let types: Vec<&str> = parts.iter().map(|part| part.model_type).collect();
        let model = GgufModel::open(path, &types)?;
        Ok(Self {
            fingerprint: model.fingerprint(),
            model,
        })
    }

    /// Whether a layer's weight is stored with a factor beside it.
    #[must_use]
    pub(crate) fn has_scales(&self) -> bool {
        let mut names = self.model.tensors.keys();
        names.any(|name| self.model.scale_beside(name).is_some())
    }

    /// Where it lies, as it was given.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.model.path
    }

    /// The same from the root on, symlinks as they are.
    #[must_use]
    pub(crate) fn full_path(&self) -> PathBuf {
        let path = std::path::absolute(&self.model.path);
        path.unwrap_or_else(|_| self.model.path.clone())
    }

    /// A part of it that is another file now, or was written to.
    #[must_use]
    pub(crate) fn changed(&self) -> Option<&Path> {
        self.model.changed()
    }

    /// What GGUF calls its architecture.
    #[must_use]
    pub(crate) fn architecture(&self) -> &'static str {
        self.model.family.architecture()
    }

    /// The files that it is in.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.model.parts.iter().map(|part| &part.path)
    }

    /// W~ of a layer whose W is given by columns, held against it.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming file, tensor and numbers: another shape, a block that is NaN or
    /// infinite, numbers that are not those of W.
    pub(crate) fn find(
        &self,
        layer: &Layer,
        original: impl FnOnce() -> Result<PageVec<f32>, Fatal>,
        comparing: Comparing<'_>,
    ) -> Result<Found, Fatal> {
        let place = self.model.family.tensor_of(&layer.name);
        let place = place.filter(|of| self.model.tensors.contains_key(&of.tensor));
        let Some(place) = place else {
            return Ok(Found::LeftOut(Why::NotGiven));
        };
        let tensor = &self.model.tensors[&place.tensor];
        let Ok(block_type) = tensor.block_type() else {
            return Ok(Found::LeftOut(Why::GivenAsUnknownType(tensor.type_number)));
        };
        let tensor = self.described(layer, &place, tensor, block_type)?;
        // llama.cpp multiplies the adapter by it there, too, and refuses NVFP4 with an adapter.
        let scaled = tensor
            .scale
            .is_some_and(|scale| scale.to_bits() != 1.0_f32.to_bits());
        if scaled && place.tensor.contains(FEED_FORWARD) {
            return Ok(Found::LeftOut(Why::GivenScaled));
        }
        let original = original()?;
        let compared = self.compare(&tensor, &original, comparing.cores);
        let check = match compared {
            Ok(check) => check,
            Err(_) if comparing.skip_broken => return Ok(Found::LeftOut(Why::GivenNotFinite)),
            Err(error) => return Err(self.broken(&tensor, error)),
        };
        if check.holds() {
            return Ok(Found::Here(GivenLayer { tensor, check }));
        }
        if comparing.skip_broken {
            return Ok(Found::LeftOut(Why::GivenUnlike));
        }
        let reason = format!(
            "is not the weight of '{}' in the checkpoint ({check}): {}; {SKIP}",
            layer.name,
            self.likely(&tensor, &original, check, comparing.cores)
        );
        Err(self.refuse(&tensor, &reason))
    }

    /// Shows W~ (m x n), some columns after others in their order, with the place of the first
    /// number of each.
    ///
    /// # Errors
    /// What `each` returns. [`Fatal::Checkpoint`] for a block that is NaN or infinite, which
    /// [`find`](Self::find) does not let through.
    pub(crate) fn pieces(
        &self,
        of: &GivenTensor,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let (m, n) = (of.tensor.ne[0], of.tensor.ne[1]);
        let columns = (DECODED / m).clamp(1, n);
        let mut values = vec![0.0; columns * m];
        for first in (0..n).step_by(columns) {
            let values = &mut values[..columns.min(n - first) * m];
            let decoded = self.columns(of, first, values);
            decoded.map_err(|e| self.broken(of, e))?;
            each(first * m, values)?;
        }
        Ok(())
    }

    /// The tensor as W~ of a layer.
    fn described(
        &self,
        layer: &Layer,
        place: &GgufLayer,
        tensor: &GgufTensor,
        block_type: BlockType,
    ) -> Result<GivenTensor, Fatal> {
        let refuse = |reason: String| {
            let reason = format!("tensor '{}': {reason}", place.tensor);
            refuse(self.model.file_of(tensor), reason)
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
        let rows = RowOrder::new(place.rows, &self.model.heads, place.block, n);
        let rows = rows.map_err(|e| refuse(e.to_string()))?;
        Ok(GivenTensor {
            name: place.tensor.clone(),
            block_type,
            tensor: tensor.clone(),
            rows,
            scale: self.scale_of(&place.tensor)?,
        })
    }

    /// The factor beside a tensor, which the engine multiplies its product by.
    fn scale_of(&self, name: &str) -> Result<Option<f32>, Fatal> {
        let beside = scale_name(name);
        let Some(tensor) = self.model.scale_beside(name) else {
            return Ok(None);
        };
        let refuse = |reason: String| {
            refuse(
                self.model.file_of(tensor),
                format!("tensor '{beside}': {reason}"),
            )
        };
        let single = tensor.ne.iter().all(|&length| length == 1);
        let bytes = self.model.bytes(tensor).unwrap_or_default();
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

    /// Columns of W~ from one on, as many as `values` takes.
    fn columns(
        &self,
        of: &GivenTensor,
        first: usize,
        values: &mut [f32],
    ) -> Result<(), BlockError> {
        let m = of.tensor.ne[0];
        let bytes = self.model.bytes(&of.tensor).unwrap_or_default();
        let blocks = m / of.block_type.block_len();
        let row_bytes = blocks * of.block_type.block_bytes();
        for (column, values) in values.chunks_exact_mut(m).enumerate() {
            let row = of.rows.stored(first + column);
            let bytes = &bytes[row * row_bytes..][..row_bytes];
            decode(of.block_type, bytes, values).map_err(|e| placed(e, row * blocks))?;
        }
        if let Some(scale) = of.scale {
            values.iter_mut().for_each(|value| *value *= scale);
        }
        Ok(())
    }

    /// How far W~ is from W.
    fn compare(
        &self,
        of: &GivenTensor,
        original: &[f32],
        cores: &Cores,
    ) -> Result<DecodeCheck, BlockError> {
        let m = of.tensor.ne[0];
        let columns = (DECODED / m).max(1);
        let pieces = original.chunks(columns * m).enumerate();
        let mut pieces: Vec<Compared<'_>> = pieces
            .map(|(piece, original)| Compared {
                first: piece * columns,
                original,
                sums: Ok(DecodeSums::default()),
            })
            .collect();
        cores.spread(pieces.iter_mut().collect(), |piece| {
            let mut values = vec![0.0; piece.original.len()];
            piece.sums = self.columns(of, piece.first, &mut values).map(|()| {
                let mut sums = DecodeSums::default();
                let rows = piece.original.chunks(m).zip(values.chunks(m));
                for (row, (original, quantized)) in rows.enumerate() {
                    sums.add_row(piece.first + row, original, quantized);
                }
                sums
            });
        });
        let mut all = DecodeSums::default();
        for piece in pieces {
            all.merge(&piece.sums?);
        }
        Ok(all.check())
    }

    /// What is likely wrong with a tensor that is not of its W: its rows are tried in the order in
    /// which they lie, where they should be in another.
    fn likely(
        &self,
        of: &GivenTensor,
        original: &[f32],
        check: DecodeCheck,
        cores: &Cores,
    ) -> String {
        let lying = GivenTensor {
            rows: RowOrder::AsTheyLie,
            ..of.clone()
        };
        let tried = (of.rows != RowOrder::AsTheyLie)
            .then(|| self.compare(&lying, original, cores))
            .and_then(Result::ok);
        match tried.filter(DecodeCheck::holds) {
            Some(_) => format!(
                "its rows have the checkpoint's order, which a GGUF of the architecture '{}' has \
                 not: it was made by another converter",
                self.architecture()
            ),
            None => check.likely(),
        }
    }

    fn broken(&self, of: &GivenTensor, error: BlockError) -> Fatal {
        self.refuse(of, &format!("{error}; {SKIP}"))
    }

    fn refuse(&self, of: &GivenTensor, reason: &str) -> Fatal {
        let reason = format!("tensor '{}' ({}): {reason}", of.name, of.block_type.name());
        refuse(self.model.file_of(&of.tensor), reason)
    }
}

/// An error in a tensor of which `before` blocks lie before those that were decoded.
fn placed(error: BlockError, before: usize) -> BlockError {
    match error {
        BlockError::NotFinite { block, value } => BlockError::NotFinite {
            block: before + block,
            value,
        },
        other => other,
    }
}
