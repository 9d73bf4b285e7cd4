//! Rows of small shards or short sequences that wait for more to make a block.

use qera_core::dtype::FloatDtype;

use crate::host::kernels::stored::{StoredNumbers, StoredRows};
use serde::{Deserialize, Serialize};

/// The rows, in the form in which they came; rows of several types are joined as f32.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    in_features: usize,
    numbers: PendingNumbers,
}

#[derive(Debug, Clone)]
enum PendingNumbers {
    Floats(Vec<f32>),
    Bytes(Vec<u8>, FloatDtype),
}

/// What a snapshot keeps of rows that wait, beside the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingRecord {
    /// How many.
    pub(crate) rows: usize,
    /// Type that they are kept in.
    pub(crate) dtype: String,
}

impl Pending {
    /// None.
    pub(crate) const fn new(in_features: usize) -> Self {
        Self {
            in_features,
            numbers: PendingNumbers::Floats(Vec::new()),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        match &self.numbers {
            PendingNumbers::Floats(values) => values.is_empty(),
            PendingNumbers::Bytes(bytes, _) => bytes.is_empty(),
        }
    }

    /// The rows.
    pub(crate) fn stored(&self) -> StoredRows<'_> {
        match &self.numbers {
            PendingNumbers::Floats(values) => StoredRows::floats(values, self.in_features),
            PendingNumbers::Bytes(bytes, dtype) => {
                StoredRows::bytes(bytes, *dtype, self.in_features)
            }
        }
    }

    /// What a snapshot keeps beside the rows.
    pub(crate) fn record(&self) -> Option<PendingRecord> {
        let rows = self.stored();
        (!self.is_empty()).then(|| PendingRecord {
            rows: rows.rows(),
            dtype: rows.dtype().name().to_owned(),
        })
    }

    /// Adds rows behind the others.
    pub(crate) fn push(&mut self, rows: StoredRows<'_>) {
        if self.is_empty() {
            self.numbers = match rows.numbers {
                StoredNumbers::Bytes(_, dtype) if dtype != FloatDtype::F32 => {
                    PendingNumbers::Bytes(Vec::new(), dtype)
                }
                _ => PendingNumbers::Floats(Vec::new()),
            };
        }
        if let (PendingNumbers::Bytes(own, dtype), StoredNumbers::Bytes(bytes, other)) =
            (&mut self.numbers, rows.numbers)
            && *dtype == other
        {
            own.extend_from_slice(bytes);
            return;
        }
        let mut joined = self.stored().widened().to_vec();
        joined.extend_from_slice(&rows.widened());
        self.numbers = PendingNumbers::Floats(joined);
    }
}
