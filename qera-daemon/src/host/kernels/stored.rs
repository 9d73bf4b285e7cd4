//! Rows in the form in which they came: what the rank update packs, and the other statistics widen
//! piece by piece.

use core::ops::Range;

use qera_core::dtype::{FloatDtype, widen};

use crate::host::kernels::page_vec::{Floats, PageVec};
use crate::host::kernels::row_weights::{Extent, LentWeights, RowWeights};

/// Rows as they are stored, row-major.
#[derive(Debug, Clone, Copy)]
pub struct StoredRows<'a> {
    pub(crate) numbers: StoredNumbers<'a>,
    /// Numbers of a row.
    pub(crate) in_features: usize,
    /// A weight for each, where not every row has weight 1.
    pub(crate) weights: Option<LentWeights<'a>>,
}

/// The numbers of stored rows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StoredNumbers<'a> {
    /// Decoded, or never encoded.
    Floats(&'a [f32]),
    /// Little-endian bytes of a shard.
    Bytes(&'a [u8], FloatDtype),
}

impl<'a> StoredRows<'a> {
    /// Rows that are numbers already.
    #[must_use]
    pub const fn floats(values: &'a [f32], in_features: usize) -> Self {
        Self {
            numbers: StoredNumbers::Floats(values),
            in_features,
            weights: None,
        }
    }

    /// Rows as little-endian bytes of a shard.
    #[must_use]
    pub const fn bytes(bytes: &'a [u8], dtype: FloatDtype, in_features: usize) -> Self {
        Self {
            numbers: StoredNumbers::Bytes(bytes, dtype),
            in_features,
            weights: None,
        }
    }

    /// The same rows with a weight for each, where weights are given.
    #[must_use]
    pub fn weighted(self, weights: Option<&'a RowWeights>) -> Self {
        Self {
            weights: weights.map(RowWeights::lend),
            ..self
        }
    }

    /// The number of rows, and their weight.
    pub(crate) fn extent(&self) -> Extent {
        let rows = self.rows() as u64;
        match self.weights {
            None => Extent::rows(rows),
            Some(weights) => Extent {
                rows,
                weight: weights.sum(),
                squares: Some(weights.squares()),
            },
        }
    }

    /// The weight of a row.
    pub(crate) fn weight_of(&self, row: usize) -> f64 {
        let weights = self.weights;
        weights.map_or(1.0, |weights| f64::from(weights.values()[row]))
    }

    /// The unit in which weights are measured where products are formed.
    pub(crate) fn unit(&self) -> f64 {
        self.weights.map_or(1.0, |weights| weights.unit())
    }

    /// The type in which the rows are kept.
    #[must_use]
    pub(crate) const fn dtype(&self) -> FloatDtype {
        match self.numbers {
            StoredNumbers::Floats(_) => FloatDtype::F32,
            StoredNumbers::Bytes(_, dtype) => dtype,
        }
    }

    /// How many rows.
    #[must_use]
    pub const fn rows(&self) -> usize {
        match self.numbers {
            StoredNumbers::Floats(values) => values.len() / self.in_features,
            StoredNumbers::Bytes(bytes, dtype) => {
                bytes.len() / (self.in_features * dtype.size_bytes())
            }
        }
    }

    /// Some of the rows.
    #[must_use]
    pub(crate) fn slice(&self, rows: Range<usize>) -> Self {
        let m = self.in_features;
        let numbers = match self.numbers {
            StoredNumbers::Floats(values) => {
                StoredNumbers::Floats(&values[rows.start * m..rows.end * m])
            }
            StoredNumbers::Bytes(bytes, dtype) => {
                let size = m * dtype.size_bytes();
                StoredNumbers::Bytes(&bytes[rows.start * size..rows.end * size], dtype)
            }
        };
        Self {
            numbers,
            weights: self.weights.map(|weights| weights.slice(rows)),
            ..*self
        }
    }

    /// Writes consecutive numbers, widened to f32.
    pub(crate) fn widen(&self, numbers: Range<usize>, out: &mut [f32]) {
        match self.numbers {
            StoredNumbers::Floats(all) => out.copy_from_slice(&all[numbers]),
            StoredNumbers::Bytes(bytes, dtype) => {
                let size = dtype.size_bytes();
                let bytes = &bytes[numbers.start * size..numbers.end * size];
                widen(bytes, dtype, out);
            }
        }
    }

    /// All numbers in f32, regardless of the rows' weights. If they are f32 already, they are lent
    /// where they lie.
    #[must_use]
    pub(crate) fn widened(&self) -> Floats<'a> {
        match self.numbers {
            StoredNumbers::Floats(values) => Floats::Lent(values),
            StoredNumbers::Bytes(..) => {
                let mut wide = PageVec::unwritten(self.rows() * self.in_features);
                self.widen(0..wide.len(), &mut wide);
                Floats::Owned(wide)
            }
        }
    }

    /// Whether the rows came as numbers of this type, or were decoded from such numbers as far as
    /// one can see.
    pub(crate) fn are(&self, dtype: FloatDtype) -> bool {
        let values = match self.numbers {
            StoredNumbers::Floats(values) => values,
            StoredNumbers::Bytes(_, own) => return own == dtype,
        };
        let lost_in_bf16 =
            |piece: &[f32]| piece.iter().fold(0, |bits, x| bits | x.to_bits()) & 0xffff;
        match dtype {
            FloatDtype::F32 => true,
            FloatDtype::F16 => values.iter().all(|x| is_f16(*x)),
            FloatDtype::Bf16 => values.chunks(4096).all(|piece| lost_in_bf16(piece) == 0),
        }
    }
}

/// Whether a finite number is exact in f16: 11 significant bits, none below 2^-24, at most 65504.
fn is_f16(x: f32) -> bool {
    const SMALLEST_NORMAL: f32 = 1.0 / 16384.0;
    const PER_SUBNORMAL: f32 = 16_777_216.0; // 2^24
    let size = x.abs();
    if size < SMALLEST_NORMAL {
        let count = size * PER_SUBNORMAL;
        count.trunc().to_bits() == count.to_bits()
    } else {
        size <= 65504.0 && x.to_bits() & 0x1fff == 0
    }
}

/// Rows that are kept, in the form in which they came; f32 rows as numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum KeptRows {
    /// f32 numbers.
    Floats(PageVec<f32>),
    /// Little-endian bytes of f16 or bf16 numbers.
    Bytes(PageVec<u8>, FloatDtype),
}

impl KeptRows {
    /// A copy of `count` rows; `at` says which rows.
    #[must_use]
    pub(crate) fn rows_of(rows: StoredRows<'_>, count: usize, at: impl Fn(usize) -> usize) -> Self {
        let m = rows.in_features;
        match rows.numbers {
            StoredNumbers::Bytes(bytes, dtype) if dtype != FloatDtype::F32 => {
                let size = m * dtype.size_bytes();
                let mut kept = PageVec::unwritten(count * size);
                for (i, to) in kept.chunks_exact_mut(size.max(1)).enumerate() {
                    to.copy_from_slice(&bytes[at(i) * size..][..size]);
                }
                Self::Bytes(kept, dtype)
            }
            _ => {
                let mut kept = PageVec::unwritten(count * m);
                for (i, to) in kept.chunks_exact_mut(m.max(1)).enumerate() {
                    rows.widen(at(i) * m..(at(i) + 1) * m, to);
                }
                Self::Floats(kept)
            }
        }
    }

    /// Rows of this width that lie in little-endian bytes; most of these stay where they are.
    #[must_use]
    pub(crate) fn of_bytes(bytes: PageVec<u8>, dtype: FloatDtype, in_features: usize) -> Self {
        match dtype {
            FloatDtype::F32 if cfg!(target_endian = "little") => Self::Floats(bytes.into_numbers()),
            FloatDtype::F32 => {
                let rows = StoredRows::bytes(&bytes, dtype, in_features);
                Self::rows_of(rows, rows.rows(), |row| row)
            }
            _ => Self::Bytes(bytes, dtype),
        }
    }

    /// The numbers as rows of this width.
    #[must_use]
    pub(crate) fn stored(&self, in_features: usize) -> StoredRows<'_> {
        match self {
            Self::Floats(values) => StoredRows::floats(values, in_features),
            Self::Bytes(bytes, dtype) => StoredRows::bytes(bytes, *dtype, in_features),
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn decoded_f16_numbers_are_known() {
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits).to_f32();
            if x.is_finite() {
                assert!(is_f16(x), "{x:e}");
                // The next f32 is none, nor is one below the smallest.
                assert!(!is_f16(f32::from_bits(x.to_bits() + 1)), "{x:e}");
            }
        }
        for none in [65536.0, 65520.0, 1e5, 3e-8, 1e-30, f32::MIN_POSITIVE] {
            assert!(!is_f16(none), "{none:e}");
        }
    }
}
