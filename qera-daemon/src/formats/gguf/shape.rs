//! A tensor's dimensions, and the bytes that they take.

use crate::formats::gguf::block_type::stored_size;
use crate::formats::gguf::error::GgufProblem;

/// The most dimensions of a tensor.
const DIMENSIONS_MAX: u32 = 4;

/// Dimensions of a tensor that are valid.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The one along memory first.
    pub(crate) ne: Vec<usize>,
    /// The number of the tensor's bytes; `None` where the type is unknown.
    pub(crate) bytes: Option<usize>,
}

impl Shape {
    /// Checks how many dimensions there are.
    ///
    /// # Errors
    /// [`GgufProblem::Dimensions`].
    pub(crate) fn check_count(dimensions: u32) -> Result<(), GgufProblem> {
        if (1..=DIMENSIONS_MAX).contains(&dimensions) {
            Ok(())
        } else {
            Err(GgufProblem::Dimensions(dimensions))
        }
    }

    /// Checks the dimensions of a tensor.
    ///
    /// # Errors
    /// [`GgufProblem::EmptyDimension`], [`GgufProblem::Overflow`], [`GgufProblem::Row`].
    pub(crate) fn checked(ne: &[u64], type_number: u32) -> Result<Self, GgufProblem> {
        if let Some(index) = ne.iter().position(|&n| n == 0) {
            return Err(GgufProblem::EmptyDimension(index));
        }
        let overflow = || GgufProblem::Overflow(ne.to_vec());
        let numbers = ne.iter().try_fold(1_u64, |all, &n| all.checked_mul(n));
        let numbers = numbers.filter(|&all| i64::try_from(all).is_ok());
        let numbers = numbers.ok_or_else(overflow)?;
        let bytes = match stored_size(type_number) {
            Some(block) => {
                let row = ne.first().copied().unwrap_or(1);
                if !row.is_multiple_of(block.len as u64) {
                    return Err(GgufProblem::Row {
                        row,
                        block: block.len,
                        type_number,
                    });
                }
                let blocks = numbers / block.len as u64;
                let bytes = blocks.checked_mul(block.bytes as u64);
                let bytes = bytes.and_then(|bytes| isize::try_from(bytes).ok());
                Some(bytes.ok_or_else(overflow)?.unsigned_abs())
            }
            None => None,
        };
        let each = ne.iter().map(|&n| usize::try_from(n).ok());
        let ne = each.collect::<Option<_>>().ok_or_else(overflow)?;
        Ok(Self { ne, bytes })
    }
}
