//! W~ of a layer from a base's files: numbers, a GGUF, or a folder of packed weights.

use std::path::Path;

use crate::error::Fatal;
use crate::formats::safetensors::header::float_dtype;
use crate::host::cores::Cores;
use crate::publish::check::gguf_base::file_of_base;
use crate::settings::gguf_path::is_gguf;
use crate::weights::checkpoint::{Checkpoint, refuse};
use crate::weights::gguf::layer_names::GgufLayerPlace;
use crate::weights::given::comparison::DECODED;
use crate::weights::given::floats::FloatWeight;
use crate::weights::given::placed::Placed;
use crate::weights::given::tensor::{GivenTensor, broken};
use crate::weights::given::{Comparing, Found, GivenModel, hold};
use crate::weights::layers::{Layer, tensor_of};
use crate::weights::packed::is_packed;

/// The advice where a tensor cannot be W~.
const ADVICE: &str =
    "--base names another base, --exclude PATTERN leaves such layers out of the replay";

/// A base that is replayed.
#[derive(Debug)]
pub(crate) enum ReplayedBase {
    /// A GGUF or a folder of packed weights, made by qera or another program.
    Given(GivenModel),
    /// A folder or a file with W~ as numbers.
    Numbers(Checkpoint),
}

/// W~ of a layer, some columns at a time.
enum BaseColumns<'a> {
    Given(GivenTensor),
    Floats(FloatWeight<'a>),
}

/// Some columns of W, from which those of W~ are subtracted.
struct BasePiece<'a> {
    first: usize,
    values: &'a mut [f32],
    outcome: Result<(), Fatal>,
}

impl ReplayedBase {
    /// Opens the base. `checkpoint` is the model in full precision.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the file.
    pub(crate) fn open(path: &Path, checkpoint: &Checkpoint) -> Result<Self, Fatal> {
        let path = file_of_base(path)?;
        if is_gguf(&path)? || is_packed(&path)? {
            return GivenModel::open(&path, &checkpoint.config).map(Self::Given);
        }
        Checkpoint::open(&path).map(Self::Numbers)
    }

    /// E = W - W~ of a layer in the memory of its W, by columns.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming file and tensor: the layer is missing, has another shape, or
    /// has numbers that are not finite or do not belong to W.
    pub(crate) fn subtract(
        &self,
        layer: &Layer,
        weight: &mut [f32],
        cores: &Cores,
    ) -> Result<(), Fatal> {
        let columns = match self {
            Self::Given(model) => BaseColumns::Given(given(model, layer, weight, cores)?),
            Self::Numbers(checkpoint) => BaseColumns::Floats(floats(checkpoint, layer)?),
        };
        let m = layer.in_features;
        let width = (DECODED / m).max(1);
        let pieces = weight.chunks_mut(width * m).enumerate();
        let mut pieces: Vec<BasePiece<'_>> = pieces
            .map(|(piece, values)| BasePiece {
                first: piece * width,
                values,
                outcome: Ok(()),
            })
            .collect();
        cores.spread(pieces.iter_mut().collect(), |piece: &mut BasePiece<'_>| {
            let mut quantized = vec![0.0; piece.values.len()];
            piece.outcome = self.decode(&columns, layer, piece.first, &mut quantized);
            let numbers = piece.values.iter_mut().zip(quantized);
            numbers.for_each(|(w, q)| *w -= q);
        });
        pieces.into_iter().try_for_each(|piece| piece.outcome)
    }

    fn decode(
        &self,
        columns: &BaseColumns<'_>,
        layer: &Layer,
        first: usize,
        values: &mut [f32],
    ) -> Result<(), Fatal> {
        match columns {
            BaseColumns::Given(tensor) => {
                let decoded = tensor.columns(first, values);
                decoded.map_err(|e| broken(tensor, &e.to_string(), ADVICE))
            }
            BaseColumns::Floats(floats) => {
                let decoded = floats.columns(first, values);
                let tensor = tensor_of(&layer.name);
                decoded.map_err(|e| refuse(self.path(), format!("tensor '{tensor}': {e}")))
            }
        }
    }

    /// The layer's place in the base; `None` where the base is no GGUF, or does not have the layer.
    #[must_use]
    pub(crate) fn gguf_place(&self, layer: &Layer) -> Option<GgufLayerPlace> {
        let Self::Given(model) = self else {
            return None;
        };
        match model.place(layer).ok()? {
            Placed::Here(GivenTensor::Gguf(of)) => Some(GgufLayerPlace {
                rows: of.rows(),
                tensor: of.name,
            }),
            _ => None,
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(model) => model.path(),
            Self::Numbers(checkpoint) => &checkpoint.path,
        }
    }
}

fn given(
    model: &GivenModel,
    layer: &Layer,
    weight: &[f32],
    cores: &Cores,
) -> Result<GivenTensor, Fatal> {
    let left_out = |why| refuse(model.path(), format!("layer '{}': {why}", layer.name));
    let tensor = match model.place(layer)? {
        Placed::Here(tensor) => tensor,
        Placed::LeftOut(why) => return Err(left_out(why)),
    };
    let comparing = Comparing {
        skip_broken: false,
        advice: ADVICE,
        cores,
    };
    match hold(tensor, layer, weight, comparing)? {
        Found::Here(found) => Ok(found.tensor),
        Found::LeftOut(why) => Err(left_out(why)),
    }
}

fn floats<'c>(checkpoint: &'c Checkpoint, layer: &Layer) -> Result<FloatWeight<'c>, Fatal> {
    let name = tensor_of(&layer.name);
    let Some(tensor) = checkpoint.tensors.get(&name) else {
        return Err(refuse(&checkpoint.path, format!("has no '{name}'")));
    };
    let refuse = |reason: String| {
        let reason = format!("tensor '{name}' {reason}");
        refuse(checkpoint.file_of(tensor), reason)
    };
    let Some(dtype) = float_dtype(tensor.dtype) else {
        return Err(refuse(format!("is {}, no numbers", tensor.dtype)));
    };
    let (inputs, outputs) = (layer.in_features, layer.out_features);
    let expected = match layer.transposed {
        true => [inputs, outputs],
        false => [outputs, inputs],
    };
    if tensor.shape != expected {
        return Err(refuse(format!(
            "is {:?}, the checkpoint's weight is {expected:?}: it is another model",
            tensor.shape
        )));
    }
    Ok(FloatWeight {
        bytes: checkpoint.bytes(tensor),
        dtype,
        inputs,
        outputs,
        transposed: layer.transposed,
    })
}
