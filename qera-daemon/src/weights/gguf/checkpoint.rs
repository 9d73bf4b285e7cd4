//! A GGUF in full precision as the checkpoint. W has the names and the row order of the Hugging
//! Face class.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;

use crate::error::Fatal;
use crate::formats::gguf::block_type::BlockType;
use crate::formats::model_config::ModelConfig;
use crate::weights::checkpoint::{Checkpoint, Tensor, refuse};
use crate::weights::gguf::file::{GgufModel, GgufTensor, scale_name};
use crate::weights::gguf::rows::RowOrder;
use crate::weights::layers::tensor_of;

/// The output layer's tensor; without it the embedding takes its place.
const OUTPUT: &str = "output.weight";

/// A tensor under its name in this program.
struct Named {
    name: String,
    tensor: Tensor,
}

/// Opens a GGUF file in full precision. Linear layers get their Hugging Face names; all other
/// tensors keep those of the file.
///
/// # Errors
/// [`Fatal::Checkpoint`] naming the file, and the tensor where it is one: as for
/// [`GgufModel::open`]; a linear layer that is quantized, or whose rows cannot be put in order.
pub(crate) fn open(path: &Path) -> Result<Checkpoint, Fatal> {
    let model = GgufModel::open(path, &[])?;
    if model.family.is_conv1d() {
        // A GGUF stores weights of Conv1D the other way round than shards and adapters have them.
        let reason = format!(
            "is of the architecture '{}', whose Hugging Face class stores its weights transposed: \
             give the Hugging Face folder",
            model.family.architecture()
        );
        return Err(refuse(path, reason));
    }
    let mut tensors = BTreeMap::new();
    for (name, tensor) in &model.tensors {
        if let Some(Named { name, tensor }) = named(&model, name, tensor)? {
            tensors.insert(name, tensor);
        }
    }
    let tied = !model.tensors.contains_key(OUTPUT);
    Ok(Checkpoint {
        is_folder: false,
        is_gguf: true,
        path: path.to_path_buf(),
        tensors,
        config: ModelConfig::of_kind(model.family.model_type(), tied),
        stray: None,
        files: model.parts,
    })
}

/// The name of a tensor in this program: that of the Hugging Face class for linear layers, that of
/// the file for all others.
#[must_use]
pub(crate) fn name_of(model: &GgufModel, name: &str) -> String {
    let module = model.family.module_of(name);
    module.map_or_else(|| name.to_owned(), |module| tensor_of(&module))
}

/// A tensor of floats. `None` for a tensor of another type that is no linear layer: an embedding
/// may be quantized in a file that is called F16.
fn named(model: &GgufModel, name: &str, tensor: &GgufTensor) -> Result<Option<Named>, Fatal> {
    let refuse =
        |reason: String| refuse(model.file_of(tensor), format!("tensor '{name}': {reason}"));
    let module = model.family.module_of(name);
    let dtype = match tensor.block_type() {
        Ok(BlockType::F32) => Dtype::F32,
        Ok(BlockType::F16) => Dtype::F16,
        Ok(BlockType::BF16) => Dtype::BF16,
        _ if module.is_none() => return Ok(None),
        Ok(other) => {
            return Err(refuse(format!(
                "is quantized ({}): --checkpoint is the model in full precision, F32, F16 or BF16; \
                 this file goes to --quantized",
                other.name()
            )));
        }
        Err(error) => return Err(refuse(error.to_string())),
    };
    if module.is_some() && model.scale_beside(name).is_some() {
        return Err(refuse(format!(
            "is to be multiplied by '{}': such weights are not read as the checkpoint",
            scale_name(name)
        )));
    }
    let rows = match module
        .as_ref()
        .and_then(|module| model.family.tensor_of(module))
    {
        Some(place) => {
            let rows = tensor.ne.get(1).copied().unwrap_or(1);
            let order = RowOrder::new(place.rows, &model.heads, place.block, rows);
            order.map_err(|e| refuse(e.to_string()))?
        }
        None => RowOrder::AsTheyLie,
    };
    Ok(Some(Named {
        name: name_of(model, name),
        tensor: Tensor {
            dtype,
            shape: tensor.ne.iter().rev().copied().collect(),
            rows,
            file: tensor.part,
            // Of a known type.
            range: tensor.range.clone().unwrap_or_default(),
        },
    }))
}
