//! An adapter's factors as numbers, whatever form its files have.

use std::io::Error as IoError;
use std::path::Path;

use qera_core::dtype::{FloatDtype, decode_weights};

use crate::formats::peft::config::PeftConfig;
use crate::formats::peft::tensors::factor_name;
use crate::formats::safetensors::header::{Claim, float_dtype};
use crate::publish::check::adapter_folder::AdapterFolder;
use crate::publish::check::findings::Findings;

/// The correction of one layer: C = `scale` A B.
#[derive(Debug, Clone)]
pub(crate) struct LayerFactors {
    /// A^T, [rank, in_features].
    pub(crate) a: Vec<f32>,
    /// B^T, [out_features, rank].
    pub(crate) b: Vec<f32>,
    /// Rank.
    pub(crate) rank: usize,
    /// What A B is multiplied by when it is applied.
    pub(crate) scale: f64,
}

/// Why the factors of a module are none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FactorsError {
    /// The check of the files has named what is wrong.
    #[error("its factors are no pair: lora_A [rank, in_features], lora_B [out_features, rank]")]
    NoPair,
    /// What stands in the configuration is more than this reads.
    #[error(
        "what A B is multiplied by is not known: rank_pattern or alpha_pattern is not understood"
    )]
    UnknownScale,
    /// More than A B.
    #[error("use_dora: the magnitudes beside A and B are not replayed")]
    Magnitudes,
    /// The disk.
    #[error("tensor '{name}': {error}")]
    Unread {
        /// The tensor.
        name: String,
        /// The system's answer.
        error: IoError,
    },
    /// A number.
    #[error("tensor '{name}' is NaN or infinite somewhere")]
    NotFinite {
        /// The tensor.
        name: String,
    },
}

impl FactorsError {
    /// Whether it is nothing wrong with the adapter, only more than is read here.
    pub(crate) const fn is_unread_form(&self) -> bool {
        matches!(self, Self::UnknownScale | Self::Magnitudes)
    }
}

/// The adapter, in one of its forms.
#[derive(Debug)]
pub(crate) struct AdapterFactors(FactorSource);

#[derive(Debug)]
enum FactorSource {
    Peft {
        folder: Box<AdapterFolder>,
        /// Without one nothing is known of the scale.
        config: Box<PeftConfig>,
    },
}

/// A matrix as a file has it.
struct StoredMatrix {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl AdapterFactors {
    /// Every form that lies at this path; what is wrong with the files is for the check to say.
    #[must_use]
    pub(crate) fn all_in(path: &Path) -> Vec<Self> {
        let mut folder = AdapterFolder::open(path, &mut Findings::default());
        let config = folder.config.take().map(Box::new);
        let peft = config.filter(|_| folder.tensors.is_some());
        let folder = Box::new(folder);
        let peft = peft.map(|config| Self(FactorSource::Peft { folder, config }));
        peft.into_iter().collect()
    }

    /// What the form is called.
    #[must_use]
    pub(crate) const fn form(&self) -> &'static str {
        match &self.0 {
            FactorSource::Peft { .. } => "peft",
        }
    }

    /// The modules that it corrects, by the names that it has for them.
    #[must_use]
    pub(crate) fn modules(&self) -> Vec<&str> {
        match &self.0 {
            FactorSource::Peft { folder, .. } => {
                let tensors = folder.tensors.iter();
                let names = tensors.flat_map(|tensors| tensors.pairs.keys());
                names.map(String::as_str).collect()
            }
        }
    }

    /// The factors of a module.
    ///
    /// # Errors
    /// [`FactorsError`].
    pub(crate) fn read(&self, module: &str) -> Result<LayerFactors, FactorsError> {
        match &self.0 {
            FactorSource::Peft { folder, config } => peft_factors(folder, config, module),
        }
    }
}

fn peft_factors(
    folder: &AdapterFolder,
    config: &PeftConfig,
    module: &str,
) -> Result<LayerFactors, FactorsError> {
    if config.dora {
        return Err(FactorsError::Magnitudes);
    }
    let scale = config.scale_of(module).ok_or(FactorsError::UnknownScale)?;
    let tensors = folder.tensors.as_ref();
    let pair = tensors.and_then(|tensors| tensors.pairs.get(module));
    let pair = pair.ok_or(FactorsError::NoPair)?;
    let matrix = |claim: &Option<Claim>, factor| {
        let claim = claim.as_ref().ok_or(FactorsError::NoPair)?;
        let name = factor_name(module, factor);
        let (&[rows, columns], Some(dtype)) = (&claim.shape[..], float_dtype(claim.dtype)) else {
            return Err(FactorsError::NoPair);
        };
        let values = numbers(folder, claim, dtype, name)?;
        Ok(StoredMatrix {
            rows,
            columns,
            values,
        })
    };
    let (a, b) = (matrix(&pair.a, 'A')?, matrix(&pair.b, 'B')?);
    if a.rows != b.columns || a.rows == 0 {
        return Err(FactorsError::NoPair);
    }
    Ok(LayerFactors {
        rank: a.rows,
        a: a.values,
        b: b.values,
        scale,
    })
}

fn numbers(
    folder: &AdapterFolder,
    claim: &Claim,
    dtype: FloatDtype,
    name: String,
) -> Result<Vec<f32>, FactorsError> {
    let bytes = match folder.bytes(claim) {
        Ok(bytes) => bytes,
        Err(error) => return Err(FactorsError::Unread { name, error }),
    };
    let mut values = vec![0.0; bytes.len() / dtype.size_bytes()];
    match decode_weights(&bytes, dtype, &mut values) {
        Ok(()) => Ok(values),
        Err(_) => Err(FactorsError::NotFinite { name }),
    }
}
