//! W~ that the user gave (`--quantized`): which tensors of it are W~ of a layer (of a GGUF: `gguf`,
//! of a folder that others packed: `packed`, floats in it: `floats`), its numbers as the engine
//! serves them (`tensor`), and whether they are those of this W (`comparison`, `moved_factors`).

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

use crate::disk::is_folder;
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
    /// Which it is: BLAKE3 of all tensors, and of what says how they are stored.
    pub(crate) fingerprint: String,
}

/// What it is read from.
#[derive(Debug)]
enum GivenSource {
    Gguf(Arc<GgufModel>),
    Packed(Arc<PackedFolder>),
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
    /// What a refusal says to do.
    pub(crate) advice: &'static str,
    /// Who decodes.
    pub(crate) cores: &'a Cores,
}

impl GivenModel {
    /// Opens what `--quantized` names, beside a checkpoint of this configuration.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming the file: as for [`GgufModel::open`], with a model of another
    /// architecture; of a folder as for [`PackedFolder::open`].
    pub(crate) fn open(path: &Path, config: &ModelConfig) -> Result<Self, Fatal> {
        if is_folder(path) {
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

    /// The GGUF; none of a folder.
    #[must_use]
    pub(crate) fn gguf(&self) -> Option<&GgufModel> {
        match &self.source {
            GivenSource::Gguf(model) => Some(model),
            GivenSource::Packed(_) => None,
        }
    }

    /// Whether a layer's weight is stored with a factor beside it.
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

    /// Where it lies, as it was given.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        match &self.source {
            GivenSource::Gguf(model) => &model.path,
            GivenSource::Packed(folder) => &folder.checkpoint.path,
        }
    }

    /// The same from the root on, symlinks as they are.
    #[must_use]
    pub(crate) fn full_path(&self) -> PathBuf {
        let path = std::path::absolute(self.path());
        path.unwrap_or_else(|_| self.path().to_path_buf())
    }

    /// The folder that is served, from the root on; none where it is a file.
    #[must_use]
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        match &self.source {
            GivenSource::Gguf(_) => None,
            GivenSource::Packed(_) => Some(self.full_path()),
        }
    }

    /// A part of it that is another file now, or was written to.
    #[must_use]
    pub(crate) fn changed(&self) -> Option<&Path> {
        match &self.source {
            GivenSource::Gguf(model) => model.changed(),
            GivenSource::Packed(folder) => folder.changed(),
        }
    }

    /// What GGUF calls its architecture; none of a folder.
    #[must_use]
    pub(crate) fn architecture(&self) -> Option<&'static str> {
        match &self.source {
            GivenSource::Gguf(model) => Some(model.family.architecture()),
            GivenSource::Packed(_) => None,
        }
    }

    /// How a folder is packed; none of a GGUF.
    #[must_use]
    pub(crate) fn method(&self) -> Option<&'static str> {
        match &self.source {
            GivenSource::Gguf(_) => None,
            GivenSource::Packed(folder) => Some(folder.config.method()),
        }
    }

    /// What its W~ is called in messages and manifests.
    #[must_use]
    pub(crate) fn format(&self) -> WeightFormat {
        WeightFormat::given(self.method().unwrap_or("gguf"))
    }

    /// How its zero points are to be read by its own word, where there are two ways.
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

    /// The files that it is in.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let files: &[MappedFile] = match &self.source {
            GivenSource::Gguf(model) => &model.parts,
            GivenSource::Packed(folder) => &folder.checkpoint.files,
        };
        files.iter().map(|file| &file.path)
    }

    /// W~ of a layer whose W is given by columns, held against it.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`] naming file, tensor and numbers: another shape, what is no finite
    /// number, numbers that are not those of W.
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

    /// The tensor that is W~ of a layer, before its numbers are looked at.
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

/// A layer's tensor held against W, which is given by columns.
///
/// # Errors
/// As for [`GivenModel::find`].
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

/// W~ held against W: of two ways to read it the one that is nearer, where they are as near the one
/// that its own word says.
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

/// Why a layer's W~ is not that of its W; none where it is.
fn unlike(found: &GivenLayer, original: &[f32], cores: &Cores) -> Option<String> {
    let GivenLayer { tensor, check } = found;
    // Rows that are other rows are no factors of them.
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

/// What is likely wrong with a tensor that is not of its W: rows of a GGUF are tried in the order
/// in which they lie, where they should be in another.
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
