//! Reads a GGUF adapter back.

use std::path::Path;

use crate::disk::mapping::Mapping;
use crate::formats::gguf::header::TensorClaim;
use crate::formats::gguf::lora::{EMBEDDING, LoraFactor, LoraGguf, factor_name};
use crate::formats::gguf::lora_matrix::{LookedThrough, LoraMatrix};
use crate::host::factor_type::FactorType;
use crate::publish::written::{Matrix, UnreadPair, WrittenPair};
use crate::weights::gguf::rows::RowOrder;

/// An open GGUF adapter.
#[derive(Debug)]
pub(crate) struct GgufFile {
    /// The content of its header.
    pub(crate) lora: LoraGguf,
    bytes: Mapping,
}

/// The header's entries of both halves of a pair.
struct PairClaims<'f> {
    a: &'f TensorClaim,
    b: &'f TensorClaim,
}

/// A pair that was looked through without keeping its numbers.
#[derive(Debug)]
pub(crate) struct LookedThroughPair {
    /// The factor `lora_a`.
    pub(crate) a: LookedThrough,
    /// The factor `lora_b`.
    pub(crate) b: LookedThrough,
}

impl GgufFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`UnreadPair::File`] for a file that is no GGUF.
    pub(crate) fn open(path: &Path) -> Result<Self, UnreadPair> {
        let bytes = Mapping::open(path).map_err(|e| UnreadPair::File(Box::new(e)))?;
        let lora = LoraGguf::parse(&bytes).map_err(|e| UnreadPair::File(Box::new(e)))?;
        Ok(Self { lora, bytes })
    }

    /// The pair of one of the model's tensors, whose rows lie in the order `rows`.
    ///
    /// # Errors
    /// [`UnreadPair`], which names the tensor.
    pub(crate) fn pair(&self, tensor: &str, rows: RowOrder) -> Result<WrittenPair, UnreadPair> {
        let PairClaims { a, b } = self.claims(tensor)?;
        let a = self.factor(tensor, LoraFactor::A, a)?;
        let b = self.factor(tensor, LoraFactor::B, b)?;
        hold_rows(tensor, rows, b.rows)?;
        let row_of = |row: usize| &b.values[rows.stored(row) * b.columns..][..b.columns];
        let values = (0..b.rows).flat_map(row_of).copied().collect();
        WrittenPair::new(tensor, a, Matrix { values, ..b })
    }

    /// Looks through the same pair without keeping it: the lengths that a file states are not
    /// compared with anything yet, and some types take less than two bits a number.
    ///
    /// # Errors
    /// The pair cannot be read, as for [`pair`](Self::pair).
    pub(crate) fn looked_through(
        &self,
        tensor: &str,
        rows: RowOrder,
    ) -> Result<LookedThroughPair, UnreadPair> {
        let PairClaims { a, b } = self.claims(tensor)?;
        let look = |factor, claim| {
            let found = LoraMatrix::look_through(&self.bytes, claim);
            found.map_err(|problem| UnreadPair::Matrix {
                tensor: factor_name(tensor, factor),
                problem,
            })
        };
        let (a, b) = (look(LoraFactor::A, a)?, look(LoraFactor::B, b)?);
        hold_rows(tensor, rows, b.rows)?;
        match a.rows == b.columns {
            true => Ok(LookedThroughPair { a, b }),
            false => Err(UnreadPair::Ranks {
                name: tensor.to_owned(),
                a: a.rows,
                b: b.columns,
            }),
        }
    }

    /// The header's entries of both halves of a pair.
    fn claims(&self, tensor: &str) -> Result<PairClaims<'_>, UnreadPair> {
        let pair = self.lora.pairs.get(tensor);
        let pair = pair.ok_or_else(|| UnreadPair::NoPair(tensor.to_owned()))?;
        let half = |factor| UnreadPair::Half(factor_name(tensor, factor));
        let claims = PairClaims {
            a: pair.a.as_ref().ok_or_else(|| half(LoraFactor::A))?,
            b: pair.b.as_ref().ok_or_else(|| half(LoraFactor::B))?,
        };
        match tensor == EMBEDDING {
            true => Err(UnreadPair::Embedding(tensor.to_owned())),
            false => Ok(claims),
        }
    }

    fn factor(
        &self,
        tensor: &str,
        factor: LoraFactor,
        claim: &TensorClaim,
    ) -> Result<Matrix, UnreadPair> {
        let found = LoraMatrix::read(&self.bytes, claim);
        let found = found.map_err(|problem| UnreadPair::Matrix {
            tensor: factor_name(tensor, factor),
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

/// Checks that this many rows of B can lie in an order.
fn hold_rows(tensor: &str, order: RowOrder, rows: usize) -> Result<(), UnreadPair> {
    match order.is_of(rows) {
        true => Ok(()),
        false => Err(UnreadPair::Rows {
            name: tensor.to_owned(),
            rows,
            order: format!("{order:?}"),
        }),
    }
}
