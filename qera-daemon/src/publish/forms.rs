//! The forms in which an adapter is written, and what each form calls the layers. Both are known
//! before a row is read.

use std::collections::BTreeSet;

use crate::error::Fatal;
use crate::host::factor_type::FactorType;
use crate::settings::publish::{AdapterForm, PublishSettings};
use crate::weights::Weights;
use crate::weights::gguf::layer_names::GgufNames;
use crate::weights::mlx::MlxNames;

/// Name of the GGUF adapter in a generation.
pub(crate) const GGUF: &str = "adapter.gguf";
/// Folder of MLX's files in a generation. They have a folder because MLX's configuration has the
/// same name as PEFT's.
pub(crate) const MLX: &str = "mlx";

/// The forms in which a run writes its adapter.
#[derive(Debug)]
pub(crate) struct AdapterForms {
    /// The forms that are written.
    pub(crate) all: BTreeSet<AdapterForm>,
    /// The layers' names in a GGUF, where one is written.
    pub(crate) gguf: Option<GgufNames>,
    /// The layers' names in mlx-lm, where its files are written.
    pub(crate) mlx: Option<MlxNames>,
}

impl AdapterForms {
    /// The forms that the settings ask for.
    ///
    /// # Errors
    /// [`Fatal::Usage`] naming the layer that a form has no place for, or the model that is not
    /// known there.
    pub(crate) fn of(settings: &PublishSettings, weights: &Weights) -> Result<Self, Fatal> {
        let writes = |form| settings.formats.contains(&form);
        let gguf = writes(AdapterForm::Gguf).then(|| GgufNames::of(weights));
        let mlx = writes(AdapterForm::Mlx).then(|| MlxNames::of(weights));
        Ok(Self {
            all: settings.formats.clone(),
            gguf: gguf
                .transpose()
                .map_err(|e| AdapterForm::Gguf.refused(&e))?,
            mlx: mlx.transpose().map_err(|e| AdapterForm::Mlx.refused(&e))?,
        })
    }

    /// The type in which numbers are written where this one is asked for. Only a GGUF has blocks;
    /// where another form is written, alone or too, the numbers stand there as floats.
    #[must_use]
    pub(crate) fn type_of(&self, dtype: FactorType) -> FactorType {
        match self.all.iter().all(|form| *form == AdapterForm::Gguf) {
            true => dtype,
            false => FactorType::Float(dtype.float()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_a_gguf_s_alone() {
        let written = |forms: &[AdapterForm], dtype| {
            let all = forms.iter().copied().collect();
            let (gguf, mlx) = (None, None);
            AdapterForms { all, gguf, mlx }.type_of(dtype)
        };
        let (peft, gguf, mlx) = (AdapterForm::Peft, AdapterForm::Gguf, AdapterForm::Mlx);
        assert_eq!(written(&[gguf], FactorType::Q8_0), FactorType::Q8_0);
        for forms in [&[peft][..], &[mlx], &[gguf, peft], &[peft, gguf, mlx]] {
            for dtype in FactorType::ALL {
                let expected = match dtype {
                    FactorType::Q8_0 => FactorType::F32,
                    float @ FactorType::Float(_) => float,
                };
                assert_eq!(written(forms, dtype), expected, "{forms:?}");
            }
        }
    }
}
