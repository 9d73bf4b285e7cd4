//! The adapter as PEFT, vLLM, SGLang and llama.cpp's converter load it unmodified.
//!
//! PEFT stores transposes: `lora_A` is A^T [rank, in_features], `lora_B` is B^T [out_features,
//! rank], and applies `lora_alpha / r`. Engines other than PEFT want one rank for all modules, so
//! every layer is padded with zeros to the largest rank used, and lora_alpha = r makes the scale 1.
//! Names are those of the class that serves the model.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::disk::new_file::NewFile;
use crate::disk::write_json;
use crate::error::Fatal;
use crate::formats::safetensors::header::{dtype_name, encode};
use crate::formats::safetensors::writer::{TensorPlan, WriteError, Writer};
use crate::publish::layers::{AdapterLayer, PublishedLayers};
use crate::publish::target_modules::target_modules;

/// Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`.
pub(crate) fn write_adapter(
    folder: &Path,
    published: &PublishedLayers<'_>,
    base_model: Option<&str>,
) -> Result<(), Fatal> {
    let config = config(published, base_model);
    write_json(&folder.join("adapter_config.json"), &config)?;

    let rank = published.rank();
    let mut plans = Vec::new();
    for AdapterLayer { layer, solution } in published.solved() {
        let plan = |factor, shape| TensorPlan {
            name: format!("base_model.model.{}.lora_{factor}.weight", layer.served_as),
            dtype: dtype_name(solution.factors.dtype.float()),
            shape,
        };
        plans.push(plan("A", vec![rank, layer.in_features]));
        plans.push(plan("B", vec![layer.out_features, rank]));
    }
    let path = folder.join("adapter_model.safetensors");
    let failed = WriteError::of(&path);
    let out = NewFile::create(&path)?;
    let mut writer = Writer::begin(out, &BTreeMap::new(), &plans).map_err(&failed)?;
    for AdapterLayer { layer, solution } in published.solved() {
        let (factors, dtype) = (&solution.factors, solution.factors.dtype.float());
        let mut a = vec![0.0; rank * layer.in_features];
        let mut b = vec![0.0; layer.out_features * rank];
        a[..factors.lora_a.len()].copy_from_slice(&factors.lora_a);
        let rows = factors.lora_b.chunks(solution.rank_used.max(1));
        for (padded, row) in b.chunks_mut(rank).zip(rows) {
            padded[..row.len()].copy_from_slice(row);
        }
        writer.tensor(&encode(&a, dtype)).map_err(&failed)?;
        writer.tensor(&encode(&b, dtype)).map_err(&failed)?;
    }
    writer.finish().map_err(&failed)?.sync()
}

/// The keys that PEFT's own writer sets; `init_lora_weights` must be true, which other loaders
/// check.
fn config(published: &PublishedLayers<'_>, base_model: Option<&str>) -> serde_json::Value {
    let rank = published.rank();
    let names = published.solved().map(|of| of.layer.served_as.as_str());
    let modules = published.weights.served_modules();
    json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        // PEFT takes it back for each module that is an nn.Linear.
        "fan_in_fan_out": published.solved().any(|of| of.layer.transposed),
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": target_modules(&names.collect(), &modules),
        "task_type": published.weights.serving().task_type,
        "use_dora": false,
        "use_rslora": false,
    })
}
