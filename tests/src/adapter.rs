//! A published generation, read back and judged by independent code.
#![allow(clippy::unwrap_used, reason = "tests only")]

use std::path::Path;

use faer::{Mat, MatRef};
use safetensors::SafeTensors;
use serde_json::Value;

/// The files of one generation.
#[derive(Debug)]
pub struct Adapter {
    /// `adapter_config.json`.
    pub config: Value,
    /// `qera_manifest.json`.
    pub manifest: Value,
    /// Bytes of `adapter_model.safetensors`.
    pub bytes: Vec<u8>,
}

/// One layer's correction as PEFT stores it, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraFactors {
    /// [rank, in_features].
    pub lora_a: Vec<f32>,
    /// [out_features, rank].
    pub lora_b: Vec<f32>,
    /// Rank of the adapter.
    pub rank: usize,
}

impl LoraFactors {
    /// The numbers of both.
    pub fn values(&self) -> impl Iterator<Item = f32> {
        self.lora_a.iter().chain(&self.lora_b).copied()
    }
}

impl Adapter {
    /// Reads the folder.
    ///
    /// # Panics
    /// When a file is missing or malformed.
    #[must_use]
    pub fn load(folder: &Path) -> Self {
        let json = |name: &str| {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            serde_json::from_slice(&bytes).unwrap()
        };
        Self {
            config: json("adapter_config.json"),
            manifest: json("qera_manifest.json"),
            bytes: std::fs::read(folder.join("adapter_model.safetensors")).unwrap(),
        }
    }

    /// The manifest's records of all layers.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn layers(&self) -> &[Value] {
        self.manifest["layers"].as_array().unwrap()
    }

    /// The manifest's record of a layer.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn layer(&self, module: &str) -> &Value {
        let of_module = self.layers().iter().find(|l| l["name"] == module);
        of_module.unwrap_or_else(|| panic!("{module} is not in the manifest"))
    }

    /// Whether the adapter has a correction of a module, by the serving class's name.
    ///
    /// # Panics
    /// When its file is malformed.
    #[must_use]
    pub fn has(&self, module: &str) -> bool {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let name = format!("base_model.model.{module}.lora_A.weight");
        file.names().contains(&name.as_str())
    }

    /// A layer's correction.
    ///
    /// # Panics
    /// When the adapter lacks the module.
    #[must_use]
    pub fn factors(&self, module: &str) -> LoraFactors {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let get = |factor: &str| {
            file.tensor(&format!("base_model.model.{module}.lora_{factor}.weight"))
                .unwrap()
        };
        let (a, b) = (get("A"), get("B"));
        assert_eq!(a.shape()[0], b.shape()[1]);
        LoraFactors {
            lora_a: decode(&a),
            lora_b: decode(&b),
            rank: a.shape()[0],
        }
    }
}

fn decode(tensor: &safetensors::tensor::TensorView<'_>) -> Vec<f32> {
    match tensor.dtype() {
        safetensors::Dtype::F32 => tensor
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        safetensors::Dtype::F16 => tensor
            .data()
            .chunks_exact(2)
            .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
            .collect(),
        _ => crate::reference::from_bf16(tensor.data()),
    }
}

/// f of a correction on rows, straight from the definition: mean over rows of ||x (E - A B)||^2, in
/// f64.
///
/// `error` is E as [out_features, in_features].
#[must_use]
pub fn output_error(
    rows: &[f32],
    error: &[f32],
    in_features: usize,
    correction: Option<&LoraFactors>,
) -> f64 {
    let m = in_features;
    let (count, n) = (rows.len() / m, error.len() / m);
    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let (rows, error) = (wide(rows), wide(error));
    let x = MatRef::from_row_major_slice(&rows, count, m);
    let mut p: Mat<f64> = MatRef::from_column_major_slice(&error, m, n).to_owned();
    if let Some(lora) = correction {
        let (a, b) = (wide(&lora.lora_a), wide(&lora.lora_b));
        let a = MatRef::from_row_major_slice(&a, lora.rank, m);
        let b = MatRef::from_row_major_slice(&b, n, lora.rank);
        p -= a.transpose() * b.transpose();
    }
    (x * p).squared_norm_l2() / count as f64
}
