//! The adapter as PEFT, vLLM, SGLang and llama.cpp's converter load it unmodified.
//!
//! PEFT stores transposes: `lora_A` is A^T [rank, in_features], `lora_B` is B^T [out_features,
//! rank]. It multiplies by `lora_alpha / r`. Engines other than PEFT want one rank for all modules,
//! so that every layer is padded with zeros to the largest rank used; lora_alpha = r makes the
//! factor 1. With `--ragged` each layer has its own rank in `rank_pattern`, and the same number in
//! `alpha_pattern`, because PEFT divides by the module's own rank. Names are those of the class
//! that serves the model.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::error::Fatal;
use crate::formats::peft::tensors::factor_name;
use crate::formats::safetensors::header::{dtype_name, encode};
use crate::formats::safetensors::writer::{TensorPlan, WriteError, Writer};
use crate::publish::generation_files::GenerationFiles;
use crate::publish::layers::{PaddedFactors, PublishedLayers};
use crate::publish::target_modules::target_modules;
use crate::publish::written::PEFT_TENSORS;

/// Writes `adapter_config.json` and `adapter_model.safetensors`.
pub(crate) fn write_adapter(
    files: &mut GenerationFiles,
    published: &PublishedLayers<'_>,
    base_model: Option<&str>,
) -> Result<(), Fatal> {
    let config = config(published, base_model);
    files.write_json("adapter_config.json", &config)?;

    let mut plans = Vec::new();
    for of in published.solved() {
        let (layer, rank) = (of.layer, published.rank_of(&of));
        let plan = |factor, shape| TensorPlan {
            name: factor_name(&layer.served_as, factor),
            dtype: dtype_name(of.solution.factors.dtype.float()),
            shape,
        };
        plans.push(plan('A', vec![rank, layer.in_features]));
        plans.push(plan('B', vec![layer.out_features, rank]));
    }
    let path = files.path(PEFT_TENSORS);
    let failed = WriteError::of(&path);
    let out = files.create(PEFT_TENSORS)?;
    let mut writer = Writer::begin(out, &BTreeMap::new(), &plans).map_err(&failed)?;
    for of in published.solved() {
        let dtype = of.solution.factors.dtype.float();
        let PaddedFactors { lora_a, lora_b } = of.padded(published.rank_of(&of));
        writer.tensor(&encode(&lora_a, dtype)).map_err(&failed)?;
        writer.tensor(&encode(&lora_b, dtype)).map_err(&failed)?;
    }
    files.wrote(PEFT_TENSORS, writer.finish().map_err(&failed)?.sync()?);
    Ok(())
}

/// The keys that PEFT's own writer sets; `init_lora_weights` must be true, which other loaders
/// check.
fn config(published: &PublishedLayers<'_>, base_model: Option<&str>) -> serde_json::Value {
    let rank = published.rank();
    let names = published.solved().map(|of| of.layer.served_as.as_str());
    let names: BTreeSet<&str> = names.collect();
    let own_ranks = own_ranks(published, &names);
    let modules = published.weights.served_modules();
    json!({
        "alpha_pattern": own_ranks,
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "bias": "none",
        // PEFT resets the flag for each module that is an nn.Linear.
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
        "rank_pattern": own_ranks,
        "revision": null,
        "target_modules": target_modules(&names, &modules),
        "task_type": published.weights.serving().task_type,
        "use_dora": false,
        "use_rslora": false,
    })
}

/// The ranks that differ from the adapter's, by module. A key means every module that ends with it;
/// so a key that is the end of another module's name is anchored, which PEFT accepts since 0.15.
fn own_ranks(published: &PublishedLayers<'_>, names: &BTreeSet<&str>) -> BTreeMap<String, usize> {
    let ends_another = |name: &str| {
        let end = format!(".{name}");
        names.iter().any(|other| other.ends_with(&end))
    };
    let own = published.solved().filter_map(|of| {
        let rank = published.rank_of(&of);
        let name = &of.layer.served_as;
        let key = match ends_another(name) {
            true => format!("^{name}"),
            false => name.clone(),
        };
        (rank != published.rank()).then_some((key, rank))
    });
    own.collect()
}
