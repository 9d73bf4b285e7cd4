//! Rows of small shards or short sequences that wait until there are enough for a block.

use qera_core::dtype::FloatDtype;

use crate::host::kernels::row_weights::RowWeights;
use crate::host::kernels::stored::{StoredNumbers, StoredRows};
use serde::{Deserialize, Serialize};

/// Rows that wait, in the form in which they came. Rows of several types are joined as f32, and
/// beside rows with weights others get weight 1.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    in_features: usize,
    numbers: PendingNumbers,
    weights: Option<RowWeights>,
}

#[derive(Debug, Clone)]
enum PendingNumbers {
    Floats(Vec<f32>),
    Bytes(Vec<u8>, FloatDtype),
}

/// What a snapshot keeps of rows that wait, apart from the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingRecord {
    /// The number of rows.
    pub(crate) rows: usize,
    /// The type in which they are kept.
    pub(crate) dtype: String,
    /// Whether they have weights.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub(crate) weighted: bool,
}

impl Pending {
    /// No rows wait yet.
    pub(crate) const fn new(in_features: usize) -> Self {
        Self {
            in_features,
            numbers: PendingNumbers::Floats(Vec::new()),
            weights: None,
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
        let rows = match &self.numbers {
            PendingNumbers::Floats(values) => StoredRows::floats(values, self.in_features),
            PendingNumbers::Bytes(bytes, dtype) => {
                StoredRows::bytes(bytes, *dtype, self.in_features)
            }
        };
        rows.weighted(self.weights.as_ref())
    }

    /// What a snapshot keeps, apart from the rows; `None` where no row waits.
    pub(crate) fn record(&self) -> Option<PendingRecord> {
        let rows = self.stored();
        (!self.is_empty()).then(|| PendingRecord {
            rows: rows.rows(),
            dtype: rows.dtype().name().to_owned(),
            weighted: rows.weights.is_some(),
        })
    }

    /// Adds rows behind the others.
    pub(crate) fn push(&mut self, rows: StoredRows<'_>) {
        self.push_weights(rows);
        self.push_numbers(rows);
    }

    /// Adds the weights of rows that are added next.
    fn push_weights(&mut self, rows: StoredRows<'_>) {
        let before = self.stored();
        if before.weights.is_none() && rows.weights.is_none() {
            return;
        }
        let of = |rows: StoredRows<'_>| match rows.weights {
            Some(weights) => weights.values().to_vec(),
            None => vec![1.0; rows.rows()],
        };
        let joined = [of(before), of(rows)].concat();
        self.weights = Some(RowWeights::new(joined));
    }

    fn push_numbers(&mut self, rows: StoredRows<'_>) {
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
