//! Rows in the forms in which a device has them.

use crate::dtype::{FloatDtype, widen};

/// Rows of m values each, row-major, as a device has them.
#[derive(Clone, Copy, Debug)]
pub enum DeviceRows<'a> {
    /// The values as f32 numbers.
    F32(&'a [f32]),
    /// The values as the bytes of little-endian f32, f16 or bf16 numbers.
    Bytes(&'a [u8], FloatDtype),
    /// The values as integers, each to be multiplied by one scale.
    Int8 {
        /// The integers.
        values: &'a [i8],
        /// What each is multiplied by.
        scale: f32,
    },
}

impl DeviceRows<'_> {
    /// How many values there are; an incomplete last one counts.
    pub(super) const fn values(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bytes(bytes, dtype) => bytes.len().div_ceil(dtype.size_bytes()),
            Self::Int8 { values, .. } => values.len(),
        }
    }

    /// Whether the bytes end with a whole number.
    pub(super) const fn whole(&self) -> bool {
        match self {
            Self::Bytes(bytes, dtype) => bytes.len().is_multiple_of(dtype.size_bytes()),
            Self::F32(_) | Self::Int8 { .. } => true,
        }
    }

    /// Writes the values from `first` on, as many as `out` holds.
    pub(super) fn write(&self, first: usize, out: &mut [f32]) {
        match *self {
            Self::F32(values) => out.copy_from_slice(&values[first..first + out.len()]),
            Self::Bytes(bytes, dtype) => {
                let size = dtype.size_bytes();
                widen(&bytes[first * size..][..out.len() * size], dtype, out);
            }
            Self::Int8 { values, scale } => {
                for (out, value) in out.iter_mut().zip(&values[first..]) {
                    *out = f32::from(*value) * scale;
                }
            }
        }
    }
}
