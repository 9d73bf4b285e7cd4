//! A GGUF adapter, read back.

use std::path::Path;

use crate::disk::mapping::Mapping;
use crate::formats::gguf::header::TensorClaim;
use crate::formats::gguf::lora::{LoraFactor, LoraGguf, LoraMatrix, factor_name};
use crate::host::factor_type::FactorType;
use crate::publish::written::{Matrix, UnreadPair, WrittenPair};
use crate::weights::gguf::rows::RowOrder;

/// An open file.
#[derive(Debug)]
pub(crate) struct GgufFile {
    /// What its header says.
    pub(crate) lora: LoraGguf,
    bytes: Mapping,
}

impl GgufFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`UnreadPair::File`] for what is no GGUF.
    pub(crate) fn open(path: &Path) -> Result<Self, UnreadPair> {
        let bytes = Mapping::open(path).map_err(|e| UnreadPair::File(Box::new(e)))?;
        let lora = LoraGguf::parse(&bytes).map_err(|e| UnreadPair::File(Box::new(e)))?;
        Ok(Self { lora, bytes })
    }

    /// The pair of one of the model's tensors, whose rows lie so.
    ///
    /// # Errors
    /// [`UnreadPair`], which names the tensor.
    pub(crate) fn pair(&self, tensor: &str, rows: RowOrder) -> Result<WrittenPair, UnreadPair> {
        let pair = self.lora.pairs.get(tensor);
        let pair = pair.ok_or_else(|| UnreadPair::NoPair(tensor.to_owned()))?;
        let a = self.factor(tensor, LoraFactor::A, pair.a.as_ref())?;
        let b = self.factor(tensor, LoraFactor::B, pair.b.as_ref())?;
        if !rows.is_of(b.rows) {
            return Err(UnreadPair::Rows {
                name: tensor.to_owned(),
                rows: b.rows,
                order: format!("{rows:?}"),
            });
        }
        let row_of = |row: usize| &b.values[rows.stored(row) * b.columns..][..b.columns];
        let values = (0..b.rows).flat_map(row_of).copied().collect();
        WrittenPair::new(tensor, a, Matrix { values, ..b })
    }

    fn factor(
        &self,
        tensor: &str,
        factor: LoraFactor,
        claim: Option<&TensorClaim>,
    ) -> Result<Matrix, UnreadPair> {
        let name = factor_name(tensor, factor);
        let Some(claim) = claim else {
            return Err(UnreadPair::Half(name));
        };
        let found = LoraMatrix::read(&self.bytes, claim);
        let found = found.map_err(|problem| UnreadPair::Matrix {
            tensor: name,
            problem,
        })?;
        Ok(Matrix {
            rows: found.rows,
            columns: found.columns,
            dtype: FactorType::of_block_type(found.stored_in),
            values: found.values,
        })
    }
}
