//! An adapter's factors as numbers, whichever form its files have.

use std::path::Path;

use crate::disk::read_if_there;
use crate::formats::mlx;
use crate::formats::mlx::config::MlxConfig;
use crate::formats::peft::config::PeftConfig;
use crate::publish::check::adapter_folder::{AdapterFolder, TENSORS};
use crate::publish::check::findings::Findings;
use crate::publish::written::gguf::GgufFile;
use crate::publish::written::tensor_file::{MlxFile, PeftFile};
use crate::publish::written::{UnreadPair, WrittenPair};
use crate::settings::publish::AdapterForm;
use crate::weights::gguf::rows::RowOrder;

/// The correction of one layer: C = `scale` A B.
#[derive(Debug)]
pub(crate) struct LayerFactors {
    /// A^T and B^T, with rows of B in the order of the checkpoint's weight.
    pub(crate) pair: WrittenPair,
    /// The number by which A B is multiplied.
    pub(crate) scale: f64,
}

/// Why a module's factors cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FactorsError {
    /// The files are at fault.
    #[error("{0}")]
    Pair(#[from] UnreadPair),
    /// The configuration has no scale, or more than is read here.
    #[error("what A B is multiplied by is not known: {0}")]
    UnknownScale(&'static str),
    /// The module has more than A B.
    #[error("DoRA: the magnitudes beside A and B are not replayed")]
    Magnitudes,
}

impl FactorsError {
    /// Whether the adapter may be in order, and only more than is read here.
    pub(crate) const fn is_unread_form(&self) -> bool {
        match self {
            Self::Pair(unread) => unread.is_right(),
            Self::UnknownScale(_) | Self::Magnitudes => true,
        }
    }
}

/// An adapter in one of its forms.
#[derive(Debug)]
pub(crate) struct AdapterFactors(FactorSource);

#[derive(Debug)]
enum FactorSource {
    Peft {
        file: PeftFile,
        modules: Vec<String>,
        config: Box<PeftConfig>,
    },
    Gguf(GgufFile),
    Mlx {
        file: MlxFile,
        config: MlxConfig,
    },
}

impl AdapterFactors {
    /// The forms of the adapter at this path. The check tells what is wrong with files.
    #[must_use]
    pub(crate) fn all_in(path: &Path) -> Vec<Self> {
        let mut folder = AdapterFolder::open(path, &mut Findings::default());
        let forms = core::mem::take(&mut folder.forms);
        let sources = forms.into_iter().filter_map(|form| match form {
            AdapterForm::Peft => peft(&mut folder),
            AdapterForm::Gguf => {
                let file = GgufFile::open(&folder.gguf()).ok()?;
                Some(FactorSource::Gguf(file))
            }
            AdapterForm::Mlx => mlx_files(&folder.mlx()),
        });
        sources.map(Self).collect()
    }

    /// The form.
    #[must_use]
    pub(crate) const fn form(&self) -> AdapterForm {
        match &self.0 {
            FactorSource::Peft { .. } => AdapterForm::Peft,
            FactorSource::Gguf(_) => AdapterForm::Gguf,
            FactorSource::Mlx { .. } => AdapterForm::Mlx,
        }
    }

    /// The modules that it corrects, under the form's names.
    #[must_use]
    pub(crate) fn names(&self) -> Vec<&str> {
        match &self.0 {
            FactorSource::Peft { modules, .. } => modules.iter().map(String::as_str).collect(),
            FactorSource::Gguf(file) => file.lora.pairs.keys().map(String::as_str).collect(),
            FactorSource::Mlx { file, .. } => {
                let names = file.tensors.pairs.keys();
                names.map(String::as_str).collect()
            }
        }
    }

    /// The factors of this name, for a layer whose rows lie in the order `rows` in a GGUF.
    ///
    /// # Errors
    /// [`FactorsError`].
    pub(crate) fn read(&self, name: &str, rows: RowOrder) -> Result<LayerFactors, FactorsError> {
        match &self.0 {
            FactorSource::Peft { file, config, .. } => {
                if config.dora {
                    return Err(FactorsError::Magnitudes);
                }
                let scale = config.scale_of(name);
                let unknown = "rank_pattern or alpha_pattern is not understood";
                Ok(LayerFactors {
                    scale: scale.ok_or(FactorsError::UnknownScale(unknown))?,
                    pair: file.pair(name)?,
                })
            }
            FactorSource::Gguf(file) => {
                let pair = file.pair(name, rows)?;
                let scale = file.lora.scale(pair.rank);
                Ok(LayerFactors { pair, scale })
            }
            FactorSource::Mlx { file, config } => {
                // A configuration that has more than LoRA is not understood.
                if !config.unchecked.is_empty() || !file.tensors.others.is_empty() {
                    return Err(FactorsError::Magnitudes);
                }
                let unknown = "lora_parameters has no scale";
                Ok(LayerFactors {
                    scale: config.scale.ok_or(FactorsError::UnknownScale(unknown))?,
                    pair: file.pair(name)?,
                })
            }
        }
    }
}

fn peft(folder: &mut AdapterFolder) -> Option<FactorSource> {
    let config = Box::new(folder.config.take()?);
    let modules = folder.tensors.as_ref()?.pairs.keys().cloned().collect();
    let file = PeftFile::open(&folder.path.join(TENSORS)).ok()?;
    Some(FactorSource::Peft {
        file,
        modules,
        config,
    })
}

fn mlx_files(folder: &Path) -> Option<FactorSource> {
    let config = read_if_there(&folder.join(mlx::CONFIG)).ok()??;
    Some(FactorSource::Mlx {
        file: MlxFile::open(folder).ok()?,
        config: MlxConfig::parse(&config).ok()?,
    })
}
