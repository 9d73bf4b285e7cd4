//! The adapter as mlx-lm loads it (`--adapter-path`): `adapters.safetensors` and a configuration.
//!
//! mlx-lm stores the factors as they multiply, A [in_features, rank] and B [rank, out_features],
//! and multiplies their product by `scale`, which is no alpha. It gives factors to a layer if
//! `keys` has the layer's path within a block, for the last `num_layers` blocks, or the layer's
//! whole name. Factors that the file does not hold are zero. All layers have one rank.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::disk::{create_folders, sync};
use crate::error::Fatal;
use crate::formats::mlx::{CONFIG, MlxFactor, TENSORS, factor_name};
use crate::formats::safetensors::header::{dtype_name, encode};
use crate::formats::safetensors::writer::{TensorPlan, WriteError, Writer};
use crate::publish::forms::MLX;
use crate::publish::generation_files::GenerationFiles;
use crate::publish::layers::{PaddedFactors, PublishedLayers};
use crate::weights::mlx::MlxNames;

/// Makes the folder, and writes both files into it.
///
/// # Errors
/// [`Fatal::Io`], [`Fatal::Unwritten`].
pub(crate) fn write_mlx(
    files: &mut GenerationFiles,
    published: &PublishedLayers<'_>,
    names: &MlxNames,
) -> Result<(), Fatal> {
    let folder = files.path(MLX);
    create_folders(&folder)?;
    files.write_json(&format!("{MLX}/{CONFIG}"), &config(published, names))?;
    let rank = published.rank();
    let mut plans = Vec::new();
    for of in published.solved() {
        let name = &names.layers[of.index].name;
        let plan = |factor, shape| TensorPlan {
            name: factor_name(name, factor),
            dtype: dtype_name(of.solution.factors.dtype.float()),
            shape,
        };
        plans.push(plan(MlxFactor::A, vec![of.layer.in_features, rank]));
        plans.push(plan(MlxFactor::B, vec![rank, of.layer.out_features]));
    }
    let tensors = format!("{MLX}/{TENSORS}");
    let path = files.path(&tensors);
    let failed = WriteError::of(&path);
    let out = files.create(&tensors)?;
    let mut writer = Writer::begin(out, &BTreeMap::new(), &plans).map_err(&failed)?;
    for of in published.solved() {
        let dtype = of.solution.factors.dtype.float();
        let PaddedFactors { lora_a, lora_b } = of.padded(rank);
        let (a, b) = (
            transposed(&lora_a, rank),
            transposed(&lora_b, of.layer.out_features),
        );
        writer.tensor(&encode(&a, dtype)).map_err(&failed)?;
        writer.tensor(&encode(&b, dtype)).map_err(&failed)?;
    }
    files.wrote(&tensors, writer.finish().map_err(&failed)?.sync()?);
    sync(&folder)
}

/// mlx-lm's configuration; `scale` has no default there.
fn config(published: &PublishedLayers<'_>, names: &MlxNames) -> Value {
    let keys = published
        .solved()
        .map(|of| names.layers[of.index].key.as_str());
    json!({
        "fine_tune_type": "lora",
        "lora_parameters": {
            "dropout": 0.0,
            "keys": keys.collect::<BTreeSet<_>>(),
            "rank": published.rank(),
            "scale": 1.0,
        },
        "num_layers": names.blocks,
    })
}

/// The transpose of a matrix that has `rows` rows.
pub(crate) fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let columns = values.len() / rows.max(1);
    let by_column = (0..columns).flat_map(|column| values[column..].iter().step_by(columns));
    by_column.copied().collect()
}
