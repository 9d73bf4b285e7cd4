//! A given weight that is stored as floats, read some columns at a time.

use qera_core::dtype::{DecodeError, FloatDtype, decode_weights};

/// W~ as floats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FloatWeight<'a> {
    /// Little-endian.
    pub(crate) bytes: &'a [u8],
    /// Type of the numbers.
    pub(crate) dtype: FloatDtype,
    /// Width of its input.
    pub(crate) inputs: usize,
    /// Width of its output.
    pub(crate) outputs: usize,
    /// Whether it is stored [inputs, outputs].
    pub(crate) transposed: bool,
}

/// A number that is not finite.
#[derive(Debug, thiserror::Error)]
#[error("output {output}: {error}")]
pub(crate) struct FloatError {
    /// The number's column.
    pub(crate) output: usize,
    /// What is wrong with the number.
    pub(crate) error: DecodeError,
}

impl FloatWeight<'_> {
    /// Reads columns from `first` on, as many as `values` holds.
    ///
    /// # Errors
    /// [`FloatError`] for a number that is NaN or infinite.
    pub(crate) fn columns(&self, first: usize, values: &mut [f32]) -> Result<(), FloatError> {
        let Self {
            bytes,
            inputs,
            outputs,
            ..
        } = *self;
        let size = self.dtype.size_bytes();
        let mut column = vec![0; inputs * size];
        for (output, values) in (first..).zip(values.chunks_exact_mut(inputs)) {
            if self.transposed {
                let rows = bytes.chunks_exact(outputs * size);
                for (into, row) in column.chunks_exact_mut(size).zip(rows) {
                    into.copy_from_slice(&row[output * size..][..size]);
                }
            } else {
                column.copy_from_slice(&bytes[output * inputs * size..][..inputs * size]);
            }
            decode_weights(&column, self.dtype, values)
                .map_err(|error| FloatError { output, error })?;
        }
        Ok(())
    }
}
