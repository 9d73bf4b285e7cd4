//! Rows in the form in which they came: what the rank update packs, and the other statistics widen piece by piece.

use core::ops::Range;

use qera_core::dtype::{FloatDtype, widen};

/// Rows as they are stored, row-major.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// Decoded, or never encoded.
    Floats(&'a [f32]),
    /// Little-endian bytes of a shard.
    Bytes(&'a [u8], FloatDtype),
}

impl<'a> Stored<'a> {
    /// Rows, each `in_features` numbers long.
    #[must_use]
    pub const fn rows(&self, in_features: usize) -> usize {
        match self {
            Self::Floats(numbers) => numbers.len() / in_features,
            Self::Bytes(bytes, dtype) => bytes.len() / (in_features * dtype.size_bytes()),
        }
    }

    /// Some of the rows.
    #[must_use]
    pub(crate) fn slice(&self, in_features: usize, rows: Range<usize>) -> Self {
        match self {
            Self::Floats(numbers) => {
                Self::Floats(&numbers[rows.start * in_features..rows.end * in_features])
            }
            Self::Bytes(bytes, dtype) => {
                let size = in_features * dtype.size_bytes();
                Self::Bytes(&bytes[rows.start * size..rows.end * size], *dtype)
            }
        }
    }

    /// Writes consecutive numbers, widened to f32.
    pub(crate) fn widen(&self, numbers: Range<usize>, out: &mut [f32]) {
        match self {
            Self::Floats(all) => out.copy_from_slice(&all[numbers]),
            Self::Bytes(bytes, dtype) => {
                let size = dtype.size_bytes();
                widen(
                    &bytes[numbers.start * size..numbers.end * size],
                    *dtype,
                    out,
                );
            }
        }
    }

    /// Whether every number is a bf16 number, so that products in bf16 lose nothing.
    pub(crate) fn is_bf16(&self) -> bool {
        match self {
            Self::Floats(numbers) => numbers
                .chunks(4096)
                .all(|piece| piece.iter().fold(0, |bits, x| bits | x.to_bits()) & 0xffff == 0),
            Self::Bytes(_, dtype) => *dtype == FloatDtype::Bf16,
        }
    }
}
