//! The correction that the current generation has of a layer, for one that the rows of today do not
//! let be solved: what was good for the same W and W~ stays.

use std::path::Path;

use qera_core::dtype::{FloatDtype, widen};
use serde::Deserialize;
use serde_json::Value;

use crate::disk::open_file::OpenFile;
use crate::disk::read;
use crate::formats::peft::tensors::factor_name;
use crate::formats::safetensors::header::{Header, HeaderError, float_dtype};
use crate::host::factor_type::FactorType;
use crate::host::factors::Rounded;
use crate::judge::held_out::{Choice, ChoiceOrigin};
use crate::judge::scores::HeldOut;
use crate::publish::current::current;
use crate::publish::manifest::not_as_asked;
use crate::publish::target::Target;
use crate::solve::solution::{LayerSolution, NotAsAsked};

/// A layer as the manifest has it.
#[derive(Deserialize)]
struct KeptLayer {
    name: String,
    served_as: String,
    in_features: usize,
    out_features: usize,
    status: String,
    rank_used: usize,
    rows: u64,
    shrinkage: Option<f64>,
    shrinkage_origin: Option<ChoiceOrigin>,
    output_power: Option<f64>,
    error: Option<KeptErrors>,
    held_out_error: Option<HeldOut>,
    spectrum: Vec<f64>,
}

/// Its errors.
#[derive(Deserialize)]
struct KeptErrors {
    without: f64,
    with: f64,
    rounded: f64,
    rounded_bf16: Option<f64>,
    uncertainty: Option<f64>,
    #[serde(default)]
    in_asked_dtype: Option<Value>,
}

#[derive(Deserialize)]
struct KeptLayers {
    layers: Vec<KeptLayer>,
}

impl Target<'_> {
    /// The correction of a layer in the current generation, where that corrects the same W~ of the
    /// same weights; none where it cannot be read.
    #[must_use]
    pub(crate) fn last_correction(&self, layer: usize) -> Option<LayerSolution> {
        let (current, own) = (current(&self.out)?, self.fingerprints());
        let same = current.fingerprints.checkpoint == own.checkpoint
            && current.fingerprints.quantized == own.quantized
            && current.fingerprints.rounded == own.rounded
            && current.fingerprints.names == own.names
            && current.settings.format == self.weights().format();
        if !same {
            return None;
        }
        let folder = self.out.path.join("current");
        let manifest = read(&folder.join("qera_manifest.json")).ok()?;
        let KeptLayers { layers } = serde_json::from_slice(&manifest).ok()?;
        let name = &self.weights().layers().get(layer)?.name;
        let kept = layers.into_iter().find(|of| of.name == *name)?;
        kept.solution(layer, &folder.join("adapter_model.safetensors"))
    }
}

impl KeptLayer {
    /// As it was solved; none for one that was not, or whose factors are not there.
    fn solution(self, layer: usize, adapter: &Path) -> Option<LayerSolution> {
        if self.status != "solved" || self.rank_used == 0 {
            return None;
        }
        let a = read_factor(adapter, &factor_name(&self.served_as, 'A')).ok()??;
        let b = read_factor(adapter, &factor_name(&self.served_as, 'B')).ok()??;
        let (m, n, rank) = (self.in_features, self.out_features, self.rank_used);
        let [padded, width] = a.shape;
        if width != m || b.shape != [n, padded] || rank > padded || a.dtype != b.dtype {
            return None;
        }
        let of_rank = |row: &[f32]| row[..rank].to_vec();
        let (error, output_power) = (self.error?, self.output_power?);
        Some(LayerSolution {
            layer,
            rows: self.rows,
            rank_used: rank,
            output_power,
            error_without: error.without,
            error_with: error.with,
            error_bf16: error.rounded_bf16.unwrap_or(f64::INFINITY),
            doubt: error.uncertainty.unwrap_or_default() * error.with,
            factors: Rounded {
                dtype: FactorType::Float(a.dtype),
                lora_a: a.values[..rank * m].to_vec(),
                lora_b: b.values.chunks(padded).flat_map(of_rank).collect(),
                error: error.rounded,
            },
            not_as_asked: error.in_asked_dtype.as_ref().map(not_as_asked),
            spectrum: self.spectrum,
            choice: self
                .shrinkage
                .zip(self.shrinkage_origin)
                .map(|(shrinkage, origin)| Choice { shrinkage, origin }),
            held_out: self.held_out_error,
        })
    }
}

/// A factor as it was written.
struct KeptFactor {
    dtype: FloatDtype,
    shape: [usize; 2],
    values: Vec<f32>,
}

/// Reads a factor; none where the file has no such one, or it holds what is no number.
fn read_factor(path: &Path, name: &str) -> Result<Option<KeptFactor>, HeaderError> {
    let file = OpenFile::open(path)?;
    let header = Header::read(file.reader(), file.identity()?.bytes)?;
    let claim = header.claims.iter().find(|claim| claim.key == name);
    let Some((claim, dtype)) = claim.and_then(|of| Some((of, float_dtype(of.dtype)?))) else {
        return Ok(None);
    };
    let [rows, columns] = claim.shape[..] else {
        return Ok(None);
    };
    let mut bytes = vec![0; claim.bytes];
    file.read_exact_at(&mut bytes, claim.start)?;
    let mut values = vec![0.0; bytes.len() / dtype.size_bytes()];
    widen(&bytes, dtype, &mut values);
    let shape = [rows, columns];
    Ok(values.iter().all(|v| v.is_finite()).then_some(KeptFactor {
        dtype,
        shape,
        values,
    }))
}
