//! Blocks of consecutive rows of one text, as they are kept and saved.

use std::vec::IntoIter;

use qera_core::dtype::FloatDtype;
use qera_core::pseudo_random::SplitMix64;
use serde::{Deserialize, Serialize};

use crate::calibrate::pending::{Pending, PendingRecord};
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::row_weights::RowWeights;
use crate::host::kernels::stored::{KeptRows, StoredRows};

/// Consecutive rows of one text, in the form in which they came.
#[derive(Debug, Clone)]
pub struct Block {
    pub(crate) kept: KeptRows,
    /// The weight of each row, where rows came with weights.
    pub(crate) weights: Option<RowWeights>,
    pub(crate) in_features: usize,
    /// The block's place in the stream, which decides whether it is kept.
    pub number: u64,
}

impl Block {
    /// A block with the given number, made by copying `count` of the rows; `at` says which ones.
    #[must_use]
    pub(crate) fn of(
        rows: StoredRows<'_>,
        number: u64,
        count: usize,
        at: impl Fn(usize) -> usize,
    ) -> Self {
        let weights = rows.weights.map(|all| {
            let kept = (0..count).map(|i| all.values()[at(i)]);
            RowWeights::new(kept.collect())
        });
        Self {
            kept: KeptRows::rows_of(rows, count, at),
            weights,
            in_features: rows.in_features,
            number,
        }
    }

    /// The rows.
    #[must_use]
    pub(crate) fn stored(&self) -> StoredRows<'_> {
        let rows = self.kept.stored(self.in_features);
        rows.weighted(self.weights.as_ref())
    }

    /// The number of rows.
    #[must_use]
    pub(crate) fn rows(&self) -> usize {
        self.stored().rows()
    }

    /// The block's fixed pseudo-random number.
    pub(crate) const fn draw(&self) -> u64 {
        draw(self.number)
    }
}

/// What a snapshot keeps of a block, apart from its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockRecord {
    /// The number of rows.
    pub(crate) rows: usize,
    /// The block's place in the stream.
    pub(crate) number: u64,
    /// The type in which the rows are kept.
    pub(crate) dtype: String,
    /// Whether the rows have weights.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) weighted: bool,
}

/// What a snapshot keeps of a window or of rows kept aside, apart from the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlocksRecord {
    /// One record for each block.
    pub(crate) blocks: Vec<BlockRecord>,
    /// The smallest draw among blocks for which there was no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dropped: Option<u64>,
    /// Number of blocks seen so far.
    pub(crate) seen: u64,
    /// The rows that wait for more, if there are any.
    pub(crate) pending: Option<PendingRecord>,
    /// Number of batches that gave rows.
    pub(crate) batches: usize,
    /// Whether some of them came as sequences.
    pub(crate) sequences: bool,
}

impl BlocksRecord {
    /// The bytes of each block whose rows are kept in this type.
    pub(crate) fn block_bytes(&self, in_features: usize, dtype: FloatDtype) -> Vec<usize> {
        let own = self.blocks.iter().filter(|of| of.dtype == dtype.name());
        let row = in_features.saturating_mul(dtype.size_bytes());
        own.map(|of| of.rows.saturating_mul(row)).collect()
    }
}

/// The records of these blocks.
pub(crate) fn records(blocks: &[Block]) -> Vec<BlockRecord> {
    let record = |block: &Block| BlockRecord {
        rows: block.rows(),
        number: block.number,
        dtype: block.stored().dtype().name().to_owned(),
        weighted: block.weights.is_some(),
    };
    blocks.iter().map(record).collect()
}

/// Saved rows, by the type in which they are kept.
#[derive(Debug, Clone, Default)]
pub(crate) struct SavedRows {
    /// For each of [`DTYPES`], the little-endian bytes of the rows of that type: those of each
    /// block, then those that wait.
    pub(crate) bytes: [Vec<PageVec<u8>>; DTYPES.len()],
    /// The weights of rows that have some, of all types together.
    pub(crate) weights: Vec<f32>,
}

/// The types that rows are kept in.
pub(crate) const DTYPES: [FloatDtype; 3] = [FloatDtype::F32, FloatDtype::F16, FloatDtype::Bf16];

/// Takes rows from saved ones as records ask for them. They stay in the memory in which they lie.
pub(crate) struct SavedReader {
    in_features: usize,
    rest: [IntoIter<PageVec<u8>>; DTYPES.len()],
    weights: IntoIter<f32>,
}

impl SavedReader {
    pub(crate) fn new(in_features: usize, rows: SavedRows) -> Self {
        Self {
            in_features,
            rest: rows.bytes.map(Vec::into_iter),
            weights: rows.weights.into_iter(),
        }
    }

    /// The next rows of a type, as a block without a number of its own. `None` where there are
    /// others, the type is unknown, or weights are missing or impossible.
    fn take(&mut self, rows: usize, dtype: &str, weighted: bool) -> Option<Block> {
        let index = DTYPES.iter().position(|known| known.name() == dtype)?;
        let dtype = DTYPES[index];
        let row = self.in_features.checked_mul(dtype.size_bytes())?;
        let own = self.rest[index].next()?;
        if own.len() != rows.checked_mul(row)? {
            return None;
        }
        let weights: Option<Vec<f32>> =
            weighted.then(|| self.weights.by_ref().take(rows).collect());
        let can_weigh = |of: &Vec<f32>| {
            of.len() == rows && of.iter().all(|weight| weight.is_finite() && *weight > 0.0)
        };
        weights.as_ref().is_none_or(can_weigh).then(|| Block {
            kept: KeptRows::of_bytes(own, dtype, self.in_features),
            weights: weights.map(RowWeights::new),
            in_features: self.in_features,
            number: 0,
        })
    }

    /// The blocks of these records; `None` where the rows are others.
    pub(crate) fn blocks(&mut self, records: &[BlockRecord]) -> Option<Vec<Block>> {
        let block = |record: &BlockRecord| {
            let rows = self.take(record.rows, &record.dtype, record.weighted)?;
            Some(Block {
                number: record.number,
                ..rows
            })
        };
        records.iter().map(block).collect()
    }

    /// The rows that wait.
    pub(crate) fn pending(&mut self, record: Option<&PendingRecord>) -> Option<Pending> {
        let mut pending = Pending::new(self.in_features);
        if let Some(record) = record {
            let saved = self.take(record.rows, &record.dtype, record.weighted)?;
            pending.push(saved.stored());
        }
        Some(pending)
    }

    /// Whether everything was taken.
    pub(crate) fn is_empty(&self) -> bool {
        let mut rest = self.rest.iter().flat_map(IntoIter::as_slice);
        rest.all(|bytes| bytes.is_empty()) && self.weights.as_slice().is_empty()
    }
}

/// A fixed pseudo-random number for a block's number.
pub(crate) const fn draw(index: u64) -> u64 {
    SplitMix64::nth(index)
}

#[cfg(test)]
impl SavedRows {
    /// What is saved of a block's rows: their form, number and weights.
    pub(crate) fn of<'a>(pieces: impl Iterator<Item = StoredRows<'a>>) -> Self {
        use crate::host::kernels::stored;
        let mut saved = Self::default();
        for piece in pieces {
            let own = piece.weights.map(|weights| weights.values());
            saved.weights.extend_from_slice(own.unwrap_or_default());
            let to = DTYPES.iter().position(|dtype| *dtype == piece.dtype());
            let bytes = match piece.numbers {
                stored::StoredNumbers::Bytes(bytes, _) => bytes.to_vec(),
                stored::StoredNumbers::Floats(values) => {
                    values.iter().flat_map(|x| x.to_le_bytes()).collect()
                }
            };
            saved.bytes[to.unwrap_or_default()].push(PageVec::from(bytes));
        }
        saved
    }
}
