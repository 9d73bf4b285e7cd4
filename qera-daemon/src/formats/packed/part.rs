//! A tensor of a packed weight, with checks of its type and shape.

use half::{bf16, f16};
use safetensors::Dtype;

use crate::formats::packed::error::PackedError;

/// Bytes of a word.
const WORD: usize = 4;

/// A tensor as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedPart<'a> {
    /// The ending of its name, after the module's.
    pub(crate) name: &'static str,
    /// The type of its numbers.
    pub(crate) dtype: Dtype,
    /// Its shape.
    pub(crate) shape: &'a [usize],
    /// Its bytes, whose number fits type and shape.
    pub(crate) bytes: &'a [u8],
}

/// Words of codes, row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a>(&'a [u8]);

impl Words<'_> {
    /// The word with this index; 0 beyond the end, which is not asked for.
    pub(crate) fn at(self, index: usize) -> u32 {
        let at = index * WORD;
        let bytes = self.0.get(at..at + WORD);
        let word = bytes.and_then(|bytes| bytes.first_chunk());
        word.map_or(0, |word| u32::from_le_bytes(*word))
    }
}

/// Scales, row-major.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScaleNumbers<'a> {
    dtype: Dtype,
    bytes: &'a [u8],
}

impl ScaleNumbers<'_> {
    /// The scale with this index; 0 beyond the end, which is not asked for.
    pub(crate) fn at(self, index: usize) -> f32 {
        let pair = |of: &[u8]| of.get(index * 2..)?.first_chunk().copied();
        match self.dtype {
            Dtype::F16 => pair(self.bytes).map_or(0.0, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => pair(self.bytes).map_or(0.0, |b| bf16::from_le_bytes(b).to_f32()),
            _ => f32::from_bits(Words(self.bytes).at(index)),
        }
    }
}

impl<'a> PackedPart<'a> {
    /// The tensor as words of codes of this shape.
    ///
    /// # Errors
    /// [`PackedError::Type`], [`PackedError::Shape`].
    pub(crate) fn words(self, expected: [usize; 2], why: &str) -> Result<Words<'a>, PackedError> {
        if !matches!(self.dtype, Dtype::I32 | Dtype::U32) {
            return Err(self.type_error("I32"));
        }
        self.has(expected, why)?;
        Ok(Words(self.bytes))
    }

    /// The tensor as scales of this shape.
    ///
    /// # Errors
    /// [`PackedError::Type`], [`PackedError::Shape`].
    pub(crate) fn floats(
        self,
        expected: [usize; 2],
        why: &str,
    ) -> Result<ScaleNumbers<'a>, PackedError> {
        if !matches!(self.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32) {
            return Err(self.type_error("F16, BF16 or F32"));
        }
        self.has(expected, why)?;
        Ok(ScaleNumbers {
            dtype: self.dtype,
            bytes: self.bytes,
        })
    }

    /// The tensor as integers, of any shape.
    ///
    /// # Errors
    /// [`PackedError::Type`].
    pub(crate) fn integers(self) -> Result<Vec<i64>, PackedError> {
        let wide = |of: &[u8; 8]| i64::from_le_bytes(*of);
        let narrow = |of: &[u8; 4]| i64::from(i32::from_le_bytes(*of));
        match self.dtype {
            Dtype::I64 => Ok(self.bytes.as_chunks().0.iter().map(wide).collect()),
            Dtype::I32 => Ok(self.bytes.as_chunks().0.iter().map(narrow).collect()),
            _ => Err(self.type_error("I32 or I64")),
        }
    }

    /// Checks that the tensor has this shape.
    ///
    /// # Errors
    /// [`PackedError::Shape`].
    pub(crate) fn has(self, expected: [usize; 2], why: &str) -> Result<(), PackedError> {
        if self.shape == expected {
            return Ok(());
        }
        Err(PackedError::Shape {
            part: self.name,
            found: self.shape.to_vec(),
            expected: expected.to_vec(),
            why: why.to_owned(),
        })
    }

    /// The error that the tensor has another type.
    #[must_use]
    pub(crate) fn type_error(self, expected: &'static str) -> PackedError {
        PackedError::Type {
            part: self.name,
            found: self.dtype,
            expected,
        }
    }
}
