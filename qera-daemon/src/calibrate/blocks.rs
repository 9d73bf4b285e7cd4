//! Blocks of consecutive rows of one text, as they are kept and as they are saved.

use qera_core::dtype::FloatDtype;
use qera_core::pseudo_random::SplitMix64;
use serde::{Deserialize, Serialize};

use crate::calibrate::pending::{Pending, PendingRecord};
use crate::host::kernels::stored::{KeptRows, StoredRows};

/// Consecutive rows of one text, in the form in which they came.
#[derive(Debug, Clone)]
pub struct Block {
    pub(crate) kept: KeptRows,
    pub(crate) in_features: usize,
    /// Its place in the stream, which decides whether it stays.
    pub number: u64,
}

impl Block {
    /// The rows.
    #[must_use]
    pub(crate) fn stored(&self) -> StoredRows<'_> {
        self.kept.stored(self.in_features)
    }

    /// How many.
    #[must_use]
    pub(crate) fn rows(&self) -> usize {
        self.stored().rows()
    }

    /// A fixed pseudo-random number.
    pub(crate) const fn draw(&self) -> u64 {
        draw(self.number)
    }
}

/// What a snapshot keeps of a block beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockRecord {
    /// Rows.
    pub(crate) rows: usize,
    /// Place in the stream.
    pub(crate) number: u64,
    /// Type that they are kept in.
    pub(crate) dtype: String,
}

/// What a snapshot keeps of a window or of the rows kept aside, beside the rows themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlocksRecord {
    /// Each block.
    pub(crate) blocks: Vec<BlockRecord>,
    /// Blocks seen so far.
    pub(crate) seen: u64,
    /// Rows that wait for more, where there are some.
    pub(crate) pending: Option<PendingRecord>,
    /// Batches that gave rows.
    pub(crate) batches: usize,
    /// Whether any came as sequences.
    pub(crate) sequences: bool,
}

/// The records of blocks.
pub(crate) fn records(blocks: &[Block]) -> Vec<BlockRecord> {
    let record = |block: &Block| BlockRecord {
        rows: block.rows(),
        number: block.number,
        dtype: block.stored().dtype().name().to_owned(),
    };
    blocks.iter().map(record).collect()
}

/// Saved rows, by the type that they are kept in.
#[derive(Debug, Default)]
pub(crate) struct SavedRows {
    /// Little-endian bytes of the rows of each type, in the order of [`FloatDtype`]s as [`DTYPES`]
    /// has them.
    pub(crate) bytes: [Vec<u8>; DTYPES.len()],
}

/// The types that rows are kept in.
pub(crate) const DTYPES: [FloatDtype; 3] = [FloatDtype::F32, FloatDtype::F16, FloatDtype::Bf16];

/// Cuts saved rows into what the records name.
pub(crate) struct SavedReader<'a> {
    in_features: usize,
    rest: [&'a [u8]; DTYPES.len()],
}

impl<'a> SavedReader<'a> {
    pub(crate) fn new(in_features: usize, rows: &'a SavedRows) -> Self {
        Self {
            in_features,
            rest: rows.bytes.each_ref().map(Vec::as_slice),
        }
    }

    /// The next rows of a type; `None` where there are fewer, or the type is not known.
    pub(crate) fn take(&mut self, rows: usize, dtype: &str) -> Option<StoredRows<'a>> {
        let index = DTYPES.iter().position(|known| known.name() == dtype)?;
        let size = DTYPES[index].size_bytes();
        let length = rows.checked_mul(self.in_features)?.checked_mul(size)?;
        let (own, after) = self.rest[index].split_at_checked(length)?;
        self.rest[index] = after;
        Some(StoredRows::bytes(own, DTYPES[index], self.in_features))
    }

    /// The blocks of these records.
    pub(crate) fn blocks(&mut self, records: &[BlockRecord]) -> Option<Vec<Block>> {
        let block = |record: &BlockRecord| {
            let rows = self.take(record.rows, &record.dtype)?;
            Some(Block {
                kept: KeptRows::copy_of(rows),
                in_features: rows.in_features,
                number: record.number,
            })
        };
        records.iter().map(block).collect()
    }

    /// The rows that waited.
    pub(crate) fn pending(&mut self, record: Option<&PendingRecord>) -> Option<Pending> {
        let mut pending = Pending::new(self.in_features);
        if let Some(record) = record {
            pending.push(self.take(record.rows, &record.dtype)?);
        }
        Some(pending)
    }

    /// Whether all was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.iter().all(|rest| rest.is_empty())
    }
}

/// A fixed pseudo-random number for the block's number.
pub(crate) const fn draw(index: u64) -> u64 {
    SplitMix64::nth(index)
}

#[cfg(test)]
impl SavedRows {
    /// What is saved of these pieces.
    pub(crate) fn of<'a>(pieces: impl Iterator<Item = StoredRows<'a>>) -> Self {
        use crate::host::kernels::stored;
        let mut saved = Self::default();
        for piece in pieces {
            let to = DTYPES.iter().position(|dtype| *dtype == piece.dtype());
            let to = &mut saved.bytes[to.unwrap_or_default()];
            match piece.numbers {
                stored::StoredNumbers::Bytes(bytes, _) => to.extend_from_slice(bytes),
                stored::StoredNumbers::Floats(values) => {
                    to.extend(values.iter().flat_map(|x| x.to_le_bytes()));
                }
            }
        }
        saved
    }
}
