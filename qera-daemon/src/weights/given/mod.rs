//! W~ that the user gave (`--quantized`): which tensor of it is W~ of a layer (of a GGUF: `gguf`),
//! its numbers as the engine serves them (`tensor`), and whether they are those of this W
//! (`comparison`).

pub(crate) mod comparison;
pub(crate) mod gguf;
pub(crate) mod placed;
pub(crate) mod read_tensor;
pub(crate) mod tensor;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Fatal;
use crate::formats::model_config::ModelConfig;
use crate::host::cores::Cores;
use crate::host::kernels::page_vec::PageVec;
use crate::weights::checkpoint::refuse;
use crate::weights::decode_check::DecodeCheck;
use crate::weights::gguf::file::GgufModel;
use crate::weights::given::comparison::{DECODED, compare};
use crate::weights::given::gguf::GgufWeight;
use crate::weights::given::placed::Placed;
use crate::weights::given::read_tensor::ReadTensor;
use crate::weights::given::tensor::{GivenError, GivenTensor};
use crate::weights::layers::Layer;
use crate::weights::passed_over::Why;

/// What to do about a tensor that cannot serve.
const SKIP: &str = "--skip-broken leaves such layers out";

/// The quantized model.
#[derive(Debug)]
pub(crate) struct GivenModel {
    model: Arc<GgufModel>,
    /// Which file it is: BLAKE3 of all tensors.
    pub(crate) fingerprint: String,
}

/// W~ of one layer, and how far it is from W.
#[derive(Debug, Clone)]
pub(crate) struct GivenLayer {
    /// W~.
    pub(crate) tensor: GivenTensor,
    /// How far it is.
    pub(crate) check: DecodeCheck,
}

impl GivenLayer {
    /// As it was read.
    #[must_use]
    pub(crate) fn described(&self) -> ReadTensor {
        ReadTensor {
            tensor: self.tensor.name().to_owned(),
            stored_in: self.tensor.stored_in(),
            check: self.check,
        }
    }

    /// How far it is, beside what its type leaves.
    #[must_use]
    pub(crate) fn far(&self) -> String {
        format!(
            "'{}': relative error {:.2e}, {} leaves {:.0e} at most",
            self.tensor.name(),
            self.check.relative_error,
            self.tensor.stored_in(),
            self.tensor.most_left()
        )
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
        layers.filter(|of| of.check.relative_error > of.tensor.most_left())
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

    /// Shows W~ (m x n) of a layer, some columns after others in their order, with the place of the
    /// first number of each.
    ///
    /// # Errors
    /// What `each` returns. [`Fatal::Checkpoint`] for what is no finite number, which
    /// [`GivenModel::find`] does not let through.
    pub(crate) fn pieces(
        &self,
        layer: usize,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let of = &self.layers[layer].tensor;
        let (m, n) = (of.in_features(), of.out_features());
        let columns = (DECODED / m).clamp(1, n);
        let mut values = vec![0.0; columns * m];
        for first in (0..n).step_by(columns) {
            let values = &mut values[..columns.min(n - first) * m];
            let decoded = of.columns(first, values);
            decoded.map_err(|e| broken(of, &e))?;
            each(first * m, values)?;
        }
        Ok(())
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
            model: Arc::new(model),
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
        let path = std::path::absolute(self.path());
        path.unwrap_or_else(|_| self.path().to_path_buf())
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
    /// [`Fatal::Checkpoint`] naming file, tensor and numbers: another shape, what is no finite
    /// number, numbers that are not those of W.
    pub(crate) fn find(
        &self,
        layer: &Layer,
        original: impl FnOnce() -> Result<PageVec<f32>, Fatal>,
        comparing: Comparing<'_>,
    ) -> Result<Found, Fatal> {
        let tensor = match GgufWeight::find(&self.model, layer)?.map(GivenTensor::Gguf) {
            Placed::Here(tensor) => tensor,
            Placed::LeftOut(why) => return Ok(Found::LeftOut(why)),
        };
        let original = original()?;
        let check = match compare(&tensor, &original, comparing.cores) {
            Ok(check) => check,
            Err(_) if comparing.skip_broken => return Ok(Found::LeftOut(Why::GivenNotFinite)),
            Err(error) => return Err(broken(&tensor, &error)),
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
            likely(&tensor, &original, check, comparing.cores)
        );
        Err(refuse_tensor(&tensor, &reason))
    }
}

/// What is likely wrong with a tensor that is not of its W: rows of a GGUF are tried in the order in
/// which they lie, where they should be in another.
fn likely(of: &GivenTensor, original: &[f32], check: DecodeCheck, cores: &Cores) -> String {
    let GivenTensor::Gguf(weight) = of;
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

fn broken(of: &GivenTensor, error: &GivenError) -> Fatal {
    refuse_tensor(of, &format!("{error}; {SKIP}"))
}

fn refuse_tensor(of: &GivenTensor, reason: &str) -> Fatal {
    let reason = format!("tensor '{}' ({}): {reason}", of.name(), of.stored_in());
    refuse(of.file(), reason)
}
