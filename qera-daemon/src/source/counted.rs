//! Which rows of a tensor count, and how much, as read from its mask or weights.

use crate::disk::open_file::OpenFile;
use crate::host::kernels::row_weights::RowWeights;
use crate::source::admission::Entry;
use crate::source::beside::Counting;
use crate::source::refusal::Reason;
use crate::source::shard::{MASK, WEIGHT};

/// Which rows count, and how much.
#[derive(Default)]
pub(crate) struct Counted {
    /// 0 for each row that does not count; `None` where every row does.
    pub(crate) mask: Option<Vec<u8>>,
    /// The weights of the rows that count; `None` where each has weight 1.
    pub(crate) weights: Option<RowWeights>,
}

impl Counted {
    /// Reads the mask or the weights of a tensor.
    ///
    /// # Errors
    /// [`Reason`] where they cannot be read, or hold a value that no mask or weight can have.
    pub(crate) fn read(file: &OpenFile, entry: &Entry) -> Result<Self, Reason> {
        let fetch = |start, length| {
            let mut bytes = vec![0; length];
            let read = file.read_exact_at(&mut bytes, start);
            read.map(|()| bytes).map_err(|error| Reason::Read {
                key: entry.key.clone(),
                error,
            })
        };
        match entry.counting {
            Counting::EveryRow => Ok(Self::default()),
            Counting::Mask(start) => Self::masked(fetch(start, entry.rows)?, entry),
            Counting::Weights(start) => {
                Self::weighted(&fetch(start, entry.rows * size_of::<f32>())?, entry)
            }
        }
    }

    fn masked(mask: Vec<u8>, entry: &Entry) -> Result<Self, Reason> {
        if let Some(row) = mask.iter().position(|&value| value > 1) {
            let key = format!("{}{MASK}", entry.key);
            let value = mask[row];
            return Err(Reason::BadMask { key, row, value });
        }
        Ok(Self {
            mask: Some(mask),
            weights: None,
        })
    }

    /// Interprets little-endian f32 weights. A row of weight 0 is left out like a masked one;
    /// weights of only 0 and 1 are a mask.
    fn weighted(bytes: &[u8], entry: &Entry) -> Result<Self, Reason> {
        let weights = bytes.as_chunks::<4>().0.iter();
        let mut weights: Vec<f32> = weights.map(|le| f32::from_le_bytes(*le)).collect();
        let refused = |w: &f32| !w.is_finite() || *w < 0.0;
        if let Some(row) = weights.iter().position(refused) {
            let key = format!("{}{WEIGHT}", entry.key);
            let value = weights[row];
            return Err(Reason::BadWeight { key, row, value });
        }
        let counts = weights.iter().map(|w| u8::from(*w > 0.0)).collect();
        weights.retain(|w| *w > 0.0);
        let all_alike = weights.iter().all(|w| w.to_bits() == 1.0_f32.to_bits());
        Ok(Self {
            mask: Some(counts),
            weights: (!all_alike).then(|| RowWeights::new(weights)),
        })
    }

    /// The number of kept rows in each batch of `length` rows, in order, without empty batches.
    #[must_use]
    pub(crate) fn batches(&self, rows: usize, length: usize) -> Vec<usize> {
        let kept_of = |batch: &[u8]| batch.iter().filter(|&&m| m != 0).count();
        let mut batches: Vec<usize> = match &self.mask {
            Some(mask) => mask.chunks(length.max(1)).map(kept_of).collect(),
            None => vec![length; rows.checked_div(length).unwrap_or_default()],
        };
        batches.retain(|&rows| rows > 0);
        batches
    }
}
