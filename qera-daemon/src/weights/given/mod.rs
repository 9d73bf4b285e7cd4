//! W~ that the user gave (`--quantized`). A layer's tensors are found in a GGUF (`gguf`), in a
//! folder that another program packed (`packed`), or as floats in such a folder (`floats`);
//! `tensor` has the numbers as an engine serves them; `comparison` and `moved_factors` check that
//! they belong to this W.

pub(crate) mod comparison;
pub(crate) mod floats;
pub(crate) mod gguf;
pub(crate) mod given_layers;
pub(crate) mod moved_factors;
pub(crate) mod packed;
pub(crate) mod placed;
pub(crate) mod read_tensor;
pub(crate) mod tensor;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::presence::is_folder;
use crate::error::Fatal;
use crate::formats::model_config::ModelConfig;
use crate::formats::packed::config::PackingConfig;
use crate::formats::packed::scheme::{CodeLayout, ZeroReading};
use crate::host::cores::Cores;
use crate::host::kernels::page_vec::PageVec;
use crate::settings::weight_format::WeightFormat;
use crate::weights::checkpoint::MappedFile;
use crate::weights::decode_check::DecodeCheck;
use crate::weights::gguf::file::GgufModel;
use crate::weights::given::comparison::compare;
use crate::weights::given::gguf::GgufWeight;
use crate::weights::given::given_layers::GivenLayer;
use crate::weights::given::moved_factors::MovedFactors;
use crate::weights::given::packed::PackedTensor;
use crate::weights::given::placed::Placed;
use crate::weights::given::tensor::{GivenError, GivenTensor, broken, refuse_tensor};
use crate::weights::layers::Layer;
use crate::weights::packed::PackedFolder;
use crate::weights::passed_over::Why;

/// The quantized model.
#[derive(Debug)]
pub(crate) struct GivenModel {
    source: GivenSource,
    /// The model's fingerprint: BLAKE3 of all tensors, and of what says how they are stored.
    pub(crate) fingerprint: String,
}

/// What W~ is read from.
#[derive(Debug)]
enum GivenSource {
    Gguf(Arc<GgufModel>),
    Packed(Arc<PackedFolder>),
}

/// The result of looking for a layer's W~.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// W~ is there, and belongs to this W.
    Here(GivenLayer),
    /// The layer is left out.
    LeftOut(Why),
}

/// How layers are compared with their W~.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Comparing<'a> {
    /// Whether a layer whose W~ cannot be used is left out, and not refused.
    pub(crate) skip_broken: bool,
    /// What a refusal advises to do.
    pub(crate) advice: &'static str,
    /// The cores that decode.
    pub(crate) cores: &'a Cores,
}

impl GivenModel {
    /// Opens what `--quantized` names, beside a checkpoint of this configuration.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the file: as for [`GgufModel::open`], with a model of another
    /// architecture; of a folder as for [`PackedFolder::open`].
    pub(crate) fn open(path: &Path, config: &ModelConfig) -> Result<Self, Fatal> {
        if is_folder(path)? {
            let folder = PackedFolder::open(path)?;
            return Ok(Self {
                fingerprint: folder.fingerprint(),
                source: GivenSource::Packed(Arc::new(folder)),
            });
        }
        let parts = config.parts();
        let types: Vec<&str> = parts.iter().map(|part| part.model_type).collect();
        let model = GgufModel::open(path, &types)?;
        Ok(Self {
            fingerprint: model.fingerprint(),
            source: GivenSource::Gguf(Arc::new(model)),
        })
    }

    /// The GGUF; `None` for a folder.
    #[must_use]
    pub(crate) fn gguf(&self) -> Option<&GgufModel> {
        match &self.source {
            GivenSource::Gguf(model) => Some(model),
            GivenSource::Packed(_) => None,
        }
    }

    /// Whether some layer's weight has a factor stored beside it.
    #[must_use]
    pub(crate) fn has_scales(&self) -> bool {
        match &self.source {
            GivenSource::Gguf(model) => {
                let mut names = model.tensors.keys();
                names.any(|name| model.scale_beside(name).is_some())
            }
            GivenSource::Packed(_) => false,
        }
    }

    /// The path as it was given.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        match &self.source {
            GivenSource::Gguf(model) => &model.path,
            GivenSource::Packed(folder) => &folder.checkpoint.path,
        }
    }

    /// The path from the root on, with symlinks as they are.
    #[must_use]
    pub(crate) fn full_path(&self) -> PathBuf {
        let path = std::path::absolute(self.path());
        path.unwrap_or_else(|_| self.path().to_path_buf())
    }

    /// The folder that is served, from the root on; `None` where it is a file.
    #[must_use]
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        match &self.source {
            GivenSource::Gguf(_) => None,
            GivenSource::Packed(_) => Some(self.full_path()),
        }
    }

    /// The path of a part that was replaced or changed since it was opened.
    #[must_use]
    pub(crate) fn changed(&self) -> Option<&Path> {
        match &self.source {
            GivenSource::Gguf(model) => model.changed(),
            GivenSource::Packed(folder) => folder.changed(),
        }
    }

    /// The name of the architecture in GGUF; `None` for a folder.
    #[must_use]
    pub(crate) fn architecture(&self) -> Option<&'static str> {
        match &self.source {
            GivenSource::Gguf(model) => Some(model.family.architecture()),
            GivenSource::Packed(_) => None,
        }
    }

    /// How a folder is packed; `None` for a GGUF.
    #[must_use]
    pub(crate) fn method(&self) -> Option<&'static str> {
        match &self.source {
            GivenSource::Gguf(_) => None,
            GivenSource::Packed(folder) => Some(folder.config.method()),
        }
    }

    /// The format of W~ for messages and manifests.
    #[must_use]
    pub(crate) fn format(&self) -> WeightFormat {
        WeightFormat::given(self.method().unwrap_or("gguf"))
    }

    /// The reading of zero points that the model itself states, where there are two readings.
    #[must_use]
    pub(crate) fn said_zero_points(&self) -> Option<ZeroReading> {
        let GivenSource::Packed(folder) = &self.source else {
            return None;
        };
        match &folder.config {
            PackingConfig::Gptq(of) => match of.scheme.layout {
                CodeLayout::Gptq { zeros, .. } => Some(zeros),
                _ => None,
            },
            _ => None,
        }
    }

    /// The model's files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let files: &[MappedFile] = match &self.source {
            GivenSource::Gguf(model) => &model.parts,
            GivenSource::Packed(folder) => &folder.checkpoint.files,
        };
        files.iter().map(|file| &file.path)
    }

    /// Finds W~ of a layer and compares it with W, which is given by columns.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming file, tensor and numbers: another shape, a number that is not
    /// finite, numbers that do not belong to this W.
    pub(crate) fn find(
        &self,
        layer: &Layer,
        original: impl FnOnce() -> Result<PageVec<f32>, Fatal>,
        comparing: Comparing<'_>,
    ) -> Result<Found, Fatal> {
        match self.place(layer)? {
            Placed::Here(tensor) => hold(tensor, layer, &original()?, comparing),
            Placed::LeftOut(why) => Ok(Found::LeftOut(why)),
        }
    }

    /// Finds the tensor of a layer's W~, without looking at its numbers.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming file, tensor and numbers: another shape, rows whose order is
    /// not known.
    pub(crate) fn place(&self, layer: &Layer) -> Result<Placed<GivenTensor>, Fatal> {
        Ok(match &self.source {
            GivenSource::Gguf(model) => GgufWeight::find(model, layer)?.map(GivenTensor::Gguf),
            GivenSource::Packed(folder) => {
                PackedTensor::find(folder, layer)?.map(GivenTensor::Packed)
            }
        })
    }
}

/// Compares a layer's tensor with W, which is given by columns.
///
/// # Errors
/// The layer cannot be read, as for [`GivenModel::find`].
pub(crate) fn hold(
    tensor: GivenTensor,
    layer: &Layer,
    original: &[f32],
    comparing: Comparing<'_>,
) -> Result<Found, Fatal> {
    let found = match nearest(&tensor, original, comparing.cores) {
        Ok(found) => found,
        Err(_) if comparing.skip_broken => return Ok(Found::LeftOut(tensor.why_broken())),
        Err(error) => return Err(broken(&tensor, &error.to_string(), comparing.advice)),
    };
    if let Some(muted) = found.tensor.muted(original) {
        return match comparing.skip_broken {
            true => Ok(Found::LeftOut(tensor.why_broken())),
            false => Err(broken(&tensor, &muted.to_string(), comparing.advice)),
        };
    }
    let Some(unlike) = unlike(&found, original, comparing.cores) else {
        return Ok(Found::Here(found));
    };
    if comparing.skip_broken {
        return Ok(Found::LeftOut(Why::GivenUnlike));
    }
    let reason = format!(
        "is not the weight of '{}' in the checkpoint ({}): {unlike}; {}",
        layer.name, found.check, comparing.advice,
    );
    Err(refuse_tensor(&found.tensor, &reason))
}

/// W~ compared with W. If there are two ways to read it, the nearer one is taken; if both are as
/// near, the one that the model states.
fn nearest(of: &GivenTensor, original: &[f32], cores: &Cores) -> Result<GivenLayer, GivenError> {
    let layer = |tensor: GivenTensor| {
        let check = compare(&tensor, original, cores)?;
        Ok::<_, GivenError>(GivenLayer { tensor, check })
    };
    let said = layer(of.clone())?;
    let Some(other) = of.read_otherwise().map(layer) else {
        return Ok(said);
    };
    let other = other?;
    Ok(
        match other.check.relative_error < said.check.relative_error {
            true => other,
            false => said,
        },
    )
}

/// Why a layer's W~ does not belong to its W; `None` where it does.
fn unlike(found: &GivenLayer, original: &[f32], cores: &Cores) -> Option<String> {
    let GivenLayer { tensor, check } = found;
    // Rows that are exchanged are no factors.
    let has_rows = check.holds() || check.first_lost.is_none();
    if let GivenTensor::Packed(_) = tensor
        && has_rows
    {
        let moved = MovedFactors::find(tensor, original, cores);
        if let Some(moved) = moved.ok().flatten() {
            return Some(moved.to_string());
        }
    }
    (!check.holds()).then(|| likely(tensor, original, *check, cores))
}

/// The likely reason why a tensor does not belong to its W. For a GGUF the rows are also tried in
/// the order in which they lie.
fn likely(of: &GivenTensor, original: &[f32], check: DecodeCheck, cores: &Cores) -> String {
    let GivenTensor::Gguf(weight) = of else {
        return check.likely();
    };
    let tried = weight.as_it_lies().map(GivenTensor::Gguf);
    let tried = tried.and_then(|lying| compare(&lying, original, cores).ok());
    match tried.filter(DecodeCheck::holds) {
        Some(_) => format!(
            "its rows have the checkpoint's order, which a GGUF of the architecture '{}' has not: \
             it was made by another converter",
            weight.architecture()
        ),
        None => check.likely(),
    }
}
