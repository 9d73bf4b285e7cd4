//! Decodes a GGUF's blocks to f32, with a file for each family of types, and encodes those that are
//! written (`encode`).
//!
//! The results are bit for bit those of Python's `gguf` 0.19 and of ggml's `to_float` (`Q2_0`: of
//! ggml only): products and sums are in f32, each rounded, in the order in which these write them.
//! The layouts are little-endian and without padding.
//!
//! For a tensor of type `NVFP4` this is not everything: its file has a scale for the whole tensor
//! beside it (`<name>.scale`), by which the caller multiplies the decoded numbers.

pub(crate) mod encode;
pub(crate) mod iq1;
pub(crate) mod iq1_grid;
pub(crate) mod iq2;
pub(crate) mod iq2_grids;
pub(crate) mod iq3;
pub(crate) mod iq3_grids;
pub(crate) mod iq4;
pub(crate) mod k_quants;
pub(crate) mod legacy;
pub(crate) mod micro_scaled;
pub(crate) mod parts;
pub(crate) mod plain;
pub(crate) mod sign_bits;
pub(crate) mod ternary;

use core::error::Error;
use core::fmt;

use super::block_type::BlockType;

/// Why bytes cannot be decoded as blocks of weights.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
pub(crate) enum BlockError {
    /// The bytes are not whole blocks, or not as many as there are values to decode.
    Length {
        of: BlockType,
        bytes: usize,
        values: usize,
    },
    /// A number is not finite. The block is the first that has one, counted from 0.
    NotFinite { block: usize, value: f32 },
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length { of, bytes, values } => write!(
                f,
                "{bytes} bytes are not {values} numbers in {of}, whose blocks of {} numbers take \
                 {} bytes",
                of.block_len(),
                of.block_bytes()
            ),
            Self::NotFinite { block, value } => write!(f, "block {block} decodes to {value}"),
        }
    }
}

/// Decodes whole blocks.
///
/// # Errors
/// [`BlockError::Length`] unless the bytes are whole blocks and hold as many numbers as `values`
/// does; [`BlockError::NotFinite`] where a block has a NaN or an infinity.
pub(crate) fn decode(of: BlockType, bytes: &[u8], values: &mut [f32]) -> Result<(), BlockError> {
    let blocks = bytes.len() / of.block_bytes();
    let whole = bytes.len().is_multiple_of(of.block_bytes());
    if !whole || values.len() != blocks * of.block_len() {
        return Err(BlockError::Length {
            of,
            bytes: bytes.len(),
            values: values.len(),
        });
    }
    decode_whole(of, bytes, values);
    match first_not_finite(values) {
        Some(index) => Err(BlockError::NotFinite {
            block: index / of.block_len(),
            value: values[index],
        }),
        None => Ok(()),
    }
}

fn decode_whole(of: BlockType, bytes: &[u8], values: &mut [f32]) {
    match of {
        BlockType::F32 => plain::f32(bytes, values),
        BlockType::F16 => plain::f16(bytes, values),
        BlockType::BF16 => plain::bf16(bytes, values),
        BlockType::Q4_0 => each(bytes, values, legacy::q4_0),
        BlockType::Q4_1 => each(bytes, values, legacy::q4_1),
        BlockType::Q5_0 => each(bytes, values, legacy::q5_0),
        BlockType::Q5_1 => each(bytes, values, legacy::q5_1),
        BlockType::Q8_0 => each(bytes, values, legacy::q8_0),
        BlockType::Q2_K => each(bytes, values, k_quants::q2_k),
        BlockType::Q3_K => each(bytes, values, k_quants::q3_k),
        BlockType::Q4_K => each(bytes, values, k_quants::q4_k),
        BlockType::Q5_K => each(bytes, values, k_quants::q5_k),
        BlockType::Q6_K => each(bytes, values, k_quants::q6_k),
        BlockType::IQ2_XXS => each(bytes, values, iq2::iq2_xxs),
        BlockType::IQ2_XS => each(bytes, values, iq2::iq2_xs),
        BlockType::IQ2_S => each(bytes, values, iq2::iq2_s),
        BlockType::IQ3_XXS => each(bytes, values, iq3::iq3_xxs),
        BlockType::IQ3_S => each(bytes, values, iq3::iq3_s),
        BlockType::IQ1_S => each(bytes, values, iq1::iq1_s),
        BlockType::IQ1_M => each(bytes, values, iq1::iq1_m),
        BlockType::IQ4_NL => each(bytes, values, iq4::iq4_nl),
        BlockType::IQ4_XS => each(bytes, values, iq4::iq4_xs),
        BlockType::TQ1_0 => each(bytes, values, ternary::tq1_0),
        BlockType::TQ2_0 => each(bytes, values, ternary::tq2_0),
        BlockType::MXFP4 => each(bytes, values, micro_scaled::mxfp4),
        BlockType::NVFP4 => each(bytes, values, micro_scaled::nvfp4),
        BlockType::Q1_0 => each(bytes, values, sign_bits::q1_0),
        BlockType::Q2_0 => each(bytes, values, sign_bits::q2_0),
    }
}

/// Decodes block after block; the blocks' length is known at compile time.
fn each<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    values: &mut [f32],
    decode_block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let blocks = bytes.as_chunks().0.iter();
    for (block, out) in blocks.zip(values.as_chunks_mut().0) {
        decode_block(block, out);
    }
}

/// The number of numbers that are checked together, without a branch between them.
const FINITE_PIECE: usize = 256;

fn first_not_finite(values: &[f32]) -> Option<usize> {
    let mut pieces = values.chunks(FINITE_PIECE);
    let piece = pieces.position(|piece| !piece.iter().fold(true, |all, x| all & x.is_finite()))?;
    let start = piece * FINITE_PIECE;
    let found = values[start..].iter().position(|x| !x.is_finite());
    found.map(|index| start + index)
}

/// Decodes blocks of the type with this number in a GGUF. This is for tests that compare the
/// decoders with other programs.
///
/// # Errors
/// The type is not read, the bytes are no whole blocks, or a block has NaN or infinity.
pub fn decode_gguf_blocks(number: u32, bytes: &[u8]) -> Result<Vec<f32>, Box<dyn Error>> {
    let of = BlockType::of(number)?;
    let mut values = vec![0.0; bytes.len() / of.block_bytes() * of.block_len()];
    decode(of, bytes, &mut values)?;
    Ok(values)
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use super::golden::{BLOCKS, GOLDEN, Golden};
    use super::*;
    use qera_core::pseudo_random::SplitMix64;

    /// The blocks that `write_golden.py` makes.
    fn random_blocks(golden: &Golden) -> Vec<u8> {
        let count = BLOCKS * golden.of.block_bytes();
        let mut sequence = SplitMix64::new(u64::from(golden.of.number()));
        let mut bytes = Vec::new();
        while bytes.len() < count {
            bytes.extend(sequence.next_bits().to_le_bytes());
        }
        bytes.truncate(count);
        for block in bytes.chunks_exact_mut(golden.of.block_bytes()) {
            for &exponent in golden.exponents {
                block[exponent] &= 0xbf;
            }
        }
        bytes
    }

    #[test]
    fn every_type_is_read_as_by_other_programs() {
        for golden in &GOLDEN {
            let values = decode_gguf_blocks(golden.of.number(), &random_blocks(golden)).unwrap();
            let bytes: Vec<_> = values.into_iter().flat_map(f32::to_le_bytes).collect();
            let digest = blake3::hash(&bytes);
            assert_eq!(digest.to_string(), golden.digest, "{}", golden.of);
        }
        let types: Vec<_> = GOLDEN.iter().map(|golden| golden.of).collect();
        assert_eq!(types, BlockType::ALL);
    }

    /// All bits set are a NaN as a float or a scale; as MXFP4's exponent 2^127, of which the level
    /// -6 is too much; NVFP4 has no infinities, and reads the byte without its sign as 0.
    #[test]
    fn a_block_that_is_not_finite_is_refused_by_its_number() {
        for golden in &GOLDEN {
            let (of, mut bytes) = (golden.of, random_blocks(golden));
            let block = 3 * of.block_bytes()..4 * of.block_bytes();
            bytes[block].fill(0xff);
            let mut values = vec![0.0; BLOCKS * of.block_len()];
            let decoded = decode(of, &bytes, &mut values);
            let refused = |value: f32| match of {
                BlockType::MXFP4 => value == f32::NEG_INFINITY,
                _ => value.is_nan(),
            };
            match decoded {
                Ok(()) => assert_eq!(of, BlockType::NVFP4),
                Err(BlockError::NotFinite { block, value }) => {
                    assert!(block == 3 && refused(value), "{of}: {block} {value}");
                }
                Err(error) => panic!("{of}: {error}"),
            }
        }
        let infinite = [[0, 0x7c, 1].as_slice(), &[0; 31]].concat();
        let blocks = [vec![0; 2 * 34], infinite].concat();
        let refused = decode_gguf_blocks(8, &blocks).unwrap_err();
        assert_eq!(refused.to_string(), "block 2 decodes to inf");
    }

    /// The place matters, because pieces are checked together.
    #[test]
    fn the_first_number_that_is_not_finite_is_found_anywhere() {
        for len in [1, 255, 256, 257, 700] {
            assert_eq!(first_not_finite(&vec![0.0; len]), None);
            for index in [0, len / 2, len - 1] {
                let mut values = vec![1.0; len];
                values[index..].fill(f32::NAN);
                assert_eq!(first_not_finite(&values), Some(index));
            }
        }
    }

    #[test]
    fn bytes_that_are_no_whole_blocks_are_refused() {
        for of in BlockType::ALL {
            let (len, bytes) = (of.block_len(), of.block_bytes());
            assert_eq!(decode(of, &[], &mut []), Ok(()));
            for (bytes, values) in [
                (2 * bytes - 1, 2 * len),
                (2 * bytes + 1, 2 * len),
                (2 * bytes, 2 * len - 1),
                (2 * bytes, 2 * len + 1),
                (2 * bytes, 3 * len),
                (0, len),
                (bytes, 0),
            ] {
                let decoded = decode(of, &vec![0; bytes], &mut vec![0.0; values]);
                assert_eq!(decoded, Err(BlockError::Length { of, bytes, values }));
            }
        }
        let refused = decode_gguf_blocks(12, &[0; 143]).unwrap_err().to_string();
        assert_eq!(
            refused,
            "143 bytes are not 0 numbers in Q4_K, whose blocks of 256 numbers take 144 bytes"
        );
    }
}
