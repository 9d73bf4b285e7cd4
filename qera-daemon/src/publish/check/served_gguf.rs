//! A GGUF that is served, seen through the Hugging Face class: tensors have its names, and rows its
//! order.

use std::path::Path;

use crate::error::Fatal;
use crate::formats::gguf::blocks::decode;
use crate::publish::check::served_rows::Rows;
use crate::publish::sample::SampleSize;
use crate::weights::checkpoint::MappedFile;
use crate::weights::gguf::checkpoint::name_of;
use crate::weights::gguf::file::{GgufModel, GgufTensor};
use crate::weights::gguf::rows::RowOrder;
use crate::weights::layers::{module_of, tensor_of};

/// A GGUF with its kind's names and row orders.
#[derive(Debug)]
pub(crate) struct ServedGguf {
    model: GgufModel,
}

/// A tensor of the GGUF.
#[derive(Debug)]
pub(crate) struct ServedTensor<'a> {
    /// The tensor's name in the Hugging Face class; its own name where that class has none.
    pub(crate) name: String,
    /// The tensor's entry in the GGUF.
    pub(crate) tensor: &'a GgufTensor,
}

impl ServedGguf {
    /// Opens a GGUF; only its header is read.
    ///
    /// # Errors
    /// The file cannot be read, as for [`GgufModel::open`].
    pub(crate) fn open(path: &Path) -> Result<Self, Fatal> {
        let model = GgufModel::open(path, &[])?;
        Ok(Self { model })
    }

    /// The tensors of the GGUF.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = ServedTensor<'_>> {
        let tensors = self.model.tensors.iter();
        tensors.map(|(name, tensor)| ServedTensor {
            name: name_of(&self.model, name),
            tensor,
        })
    }

    /// The name under which [`tensors`](Self::tensors) has the weight of a module. A checkpoint may
    /// have it under another prefix, or as its output layer.
    #[must_use]
    pub(crate) fn name_of_weight(&self, module: &str) -> String {
        let family = self.model.family;
        let tensor = family.tensor_of(module).map(|of| of.tensor);
        let tensor = tensor.or_else(|| family.output_of(module));
        let is_there = |tensor: &String| self.model.tensors.contains_key(tensor);
        let tensor = tensor.filter(is_there);
        tensor.map_or_else(|| tensor_of(module), |of| name_of(&self.model, &of))
    }

    /// The mapped files of the GGUF.
    pub(crate) fn files(&self) -> &[MappedFile] {
        &self.model.parts
    }

    /// The first numbers of some rows of a tensor, by its Hugging Face name. `None` where it is no
    /// matrix of a known type, or the order of its rows is unknown.
    #[must_use]
    pub(crate) fn sample(&self, name: &str, most: SampleSize) -> Option<Rows> {
        let ServedTensor { tensor, .. } = self.tensors().find(|of| of.name == name)?;
        let (of, &[in_features, outputs]) = (tensor.block_type().ok()?, &tensor.ne[..]) else {
            return None;
        };
        let place = self.model.family.tensor_of(module_of(name)?);
        let order = place.map(|of| RowOrder::new(of.rows, &self.model.heads, of.block, outputs));
        let order = order.transpose().ok()?.unwrap_or(RowOrder::AsTheyLie);
        let bytes = self.model.bytes(tensor)?;
        let row_bytes = bytes.len() / outputs;
        let width = most.width.min(in_features);
        let (mut row_values, mut values) = (vec![0.0; in_features], Vec::new());
        for row in most.rows_of(outputs) {
            let stored = &bytes[order.stored(row) * row_bytes..][..row_bytes];
            decode(of, stored, &mut row_values).ok()?;
            values.extend_from_slice(&row_values[..width]);
        }
        Some(Rows {
            in_features,
            width,
            values,
        })
    }
}
