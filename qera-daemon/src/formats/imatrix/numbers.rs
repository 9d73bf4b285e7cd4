//! Reads the f32 numbers of a file as f64.

use crate::formats::gguf::error::Quoted;
use crate::formats::imatrix::error::ImatrixError;

/// Which numbers are valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Sums: any finite number.
    Finite,
    /// Sums of squares, and counts: finite and not negative.
    NotNegative,
}

impl Allowed {
    /// Reads the numbers of a tensor from its bytes.
    ///
    /// # Errors
    /// [`ImatrixError::Value`] for the first number that is not valid.
    pub(super) fn read(self, tensor: &str, bytes: &[u8]) -> Result<Vec<f64>, ImatrixError> {
        let stored = bytes.chunks_exact(4).enumerate();
        let number = |part: &[u8]| {
            part.first_chunk()
                .map_or(f32::NAN, |&b| f32::from_le_bytes(b))
        };
        let each = stored.map(|(index, part)| {
            let value = f64::from(number(part));
            if self.allows(value) {
                return Ok(value);
            }
            Err(ImatrixError::Value {
                tensor: Quoted::new(tensor),
                index,
                value,
                allowed: match self {
                    Self::Finite => "finite numbers are allowed",
                    Self::NotNegative => "finite numbers of at least 0 are allowed",
                },
            })
        });
        each.collect()
    }

    fn allows(self, value: f64) -> bool {
        value.is_finite() && (self == Self::Finite || value >= 0.0)
    }
}
