//! A factor of a LoRA in a GGUF as numbers: all of them, or one piece after the other.

use crate::formats::gguf::block_type::BlockType;
use crate::formats::gguf::blocks::{BlockError, decode};
use crate::formats::gguf::header::TensorClaim;

/// How many numbers are decoded at a time where none is kept.
const PIECE: usize = 1 << 16;

/// A factor as it lies in the file, row by row.
#[derive(Debug)]
pub(crate) struct LoraMatrix {
    /// The number of rows; of `lora_a` it is the rank.
    pub(crate) rows: usize,
    /// The length of a row; of `lora_b` it is the rank.
    pub(crate) columns: usize,
    /// The type in which the numbers are stored.
    pub(crate) stored_in: BlockType,
    /// The numbers.
    pub(crate) values: Vec<f32>,
}

/// Why a factor is not read. It displays as a sentence that follows the tensor's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MatrixProblem {
    /// The tensor has a matrix for each expert.
    #[error("has three dimensions, one for experts, which is not read")]
    Experts,
    /// The type holds no weights, or is unknown.
    #[error("is of type {0}, which is not read")]
    Type(String),
    /// A number is NaN or infinite.
    #[error("is NaN or infinite at [{row}, {column}]")]
    NotFinite {
        /// The number's row in the file; for a block of numbers that of the first one.
        row: usize,
        /// The number's column.
        column: usize,
    },
    /// The length is wrong, which the header's check rules out.
    #[error("cannot be read: {0}")]
    Length(BlockError),
}

/// A factor that was checked without keeping its numbers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LookedThrough {
    /// The number of rows; of `lora_a` it is the rank.
    pub(crate) rows: usize,
    /// The length of a row; of `lora_b` it is the rank.
    pub(crate) columns: usize,
    /// Whether every number is zero.
    pub(crate) is_zero: bool,
}

/// A factor's bytes.
struct StoredMatrix<'b> {
    rows: usize,
    columns: usize,
    stored_in: BlockType,
    bytes: &'b [u8],
}

impl<'b> StoredMatrix<'b> {
    fn of(bytes: &'b [u8], claim: &TensorClaim) -> Result<Self, MatrixProblem> {
        if claim.ne.iter().skip(2).any(|&n| n > 1) {
            return Err(MatrixProblem::Experts);
        }
        let of = BlockType::of(claim.type_number);
        // The header's check made sure that it lies within the file.
        let start = usize::try_from(claim.start).unwrap_or(usize::MAX);
        let end = start.saturating_add(claim.bytes.unwrap_or_default());
        Ok(Self {
            rows: claim.ne.get(1).copied().unwrap_or(1),
            columns: claim.ne.first().copied().unwrap_or(1),
            stored_in: of.map_err(|error| MatrixProblem::Type(error.to_string()))?,
            bytes: bytes.get(start..end).unwrap_or_default(),
        })
    }

    /// The problem of a piece that begins at this block.
    fn problem(&self, error: BlockError, first_block: usize) -> MatrixProblem {
        match error {
            BlockError::NotFinite { block, .. } => {
                let at = (first_block + block) * self.stored_in.block_len();
                let (row, column) = (at / self.columns, at % self.columns);
                MatrixProblem::NotFinite { row, column }
            }
            length @ BlockError::Length { .. } => MatrixProblem::Length(length),
        }
    }
}

impl LoraMatrix {
    /// The numbers of a tensor; `bytes` are the whole file.
    ///
    /// # Errors
    /// [`MatrixProblem`].
    pub(crate) fn read(bytes: &[u8], claim: &TensorClaim) -> Result<Self, MatrixProblem> {
        let stored = StoredMatrix::of(bytes, claim)?;
        let mut values = vec![0.0; stored.rows * stored.columns];
        let decoded = decode(stored.stored_in, stored.bytes, &mut values);
        decoded.map_err(|error| stored.problem(error, 0))?;
        Ok(Self {
            rows: stored.rows,
            columns: stored.columns,
            stored_in: stored.stored_in,
            values,
        })
    }

    /// Checks every number of a tensor in bounded memory, whatever size the file claims.
    ///
    /// # Errors
    /// The factor cannot be read, as for [`read`](Self::read).
    pub(crate) fn look_through(
        bytes: &[u8],
        claim: &TensorClaim,
    ) -> Result<LookedThrough, MatrixProblem> {
        let stored = StoredMatrix::of(bytes, claim)?;
        let of = stored.stored_in;
        let numbers = stored.rows * stored.columns;
        let blocks = stored.bytes.len() / of.block_bytes();
        if stored.bytes.len() % of.block_bytes() != 0 || blocks * of.block_len() != numbers {
            return Err(MatrixProblem::Length(BlockError::Length {
                of,
                bytes: stored.bytes.len(),
                values: numbers,
            }));
        }
        let piece = PIECE / of.block_len();
        let mut values = vec![0.0; numbers.min(piece * of.block_len())];
        let mut is_zero = true;
        for (index, bytes) in stored.bytes.chunks(piece * of.block_bytes()).enumerate() {
            let values = &mut values[..bytes.len() / of.block_bytes() * of.block_len()];
            let decoded = decode(of, bytes, values);
            decoded.map_err(|error| stored.problem(error, index * piece))?;
            is_zero &= values.iter().all(|value| value.abs() <= 0.0);
        }
        Ok(LookedThrough {
            rows: stored.rows,
            columns: stored.columns,
            is_zero,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(ne: &[usize], bytes: usize) -> TensorClaim {
        TensorClaim {
            name: "x.lora_a".into(),
            ne: ne.into(),
            type_number: BlockType::F32.number(),
            start: 0,
            bytes: Some(bytes),
        }
    }

    /// Three pieces are read, the last of them short.
    #[test]
    fn what_is_looked_through_is_what_is_read() {
        let (rows, columns) = (1000, 150);
        let mut values = vec![0.0_f32; rows * columns];
        let look = |values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            let claim = claim(&[columns, rows], bytes.len());
            let read = LoraMatrix::read(&bytes, &claim).map(|read| LookedThrough {
                rows: read.rows,
                columns: read.columns,
                is_zero: read.values.iter().all(|value| value.abs() <= 0.0),
            });
            let (read, looked) = (
                format!("{read:?}"),
                LoraMatrix::look_through(&bytes, &claim),
            );
            assert_eq!(format!("{looked:?}"), read);
            read
        };
        assert!(look(&values).contains("is_zero: true"));
        values[149_999] = 1.0;
        assert!(look(&values).contains("is_zero: false"));
        for at in [0, PIECE - 1, PIECE, 2 * PIECE + 7] {
            values[at] = f32::NAN;
            let (row, column) = (at / columns, at % columns);
            let said = format!("NotFinite {{ row: {row}, column: {column} }}");
            assert!(look(&values).contains(&said), "{at}");
            values[at] = 0.0;
        }
        let bytes = [0; 20];
        let short = LoraMatrix::look_through(&bytes, &claim(&[3, 2], 20));
        assert!(matches!(short, Err(MatrixProblem::Length(_))), "{short:?}");
    }
}
