//! Rows in the forms in which a device has them.

use crate::dtype::{FloatDtype, widen};

/// Rows of m values each, row-major.
#[derive(Clone, Copy, Debug)]
pub enum DeviceRows<'a> {
    /// Numbers.
    F32(&'a [f32]),
    /// Little-endian f32, f16 or bf16 numbers as bytes.
    Bytes(&'a [u8], FloatDtype),
    /// Integers, each times one scale.
    Int8 {
        /// The integers.
        values: &'a [i8],
        /// What each is multiplied by.
        scale: f32,
    },
}

impl DeviceRows<'_> {
    /// How many values there are, counting what is not a whole one.
    pub(super) const fn values(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bytes(bytes, dtype) => bytes.len().div_ceil(dtype.size_bytes()),
            Self::Int8 { values, .. } => values.len(),
        }
    }

    /// Whether the bytes are whole numbers.
    pub(super) const fn whole(&self) -> bool {
        match self {
            Self::Bytes(bytes, dtype) => bytes.len().is_multiple_of(dtype.size_bytes()),
            Self::F32(_) | Self::Int8 { .. } => true,
        }
    }

    /// Writes as many values as `out` has, from `first` on.
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
