//! The types in which A and B are written: how numbers are rounded to them, and how they become
//! bytes.
//!
//! `q8_0` is ggml's: 32 neighbours of a row share a scale d in f16, and a number is d c with a
//! whole c from -127 to 127. d is the largest magnitude over 127, rounded to f16. ggml rounds
//! numbers by d before d itself is rounded; here they are rounded by the d that a reader multiplies
//! with. Where f16 is so coarse (below 2^-14) that the largest number would be cut off, d is
//! rounded up.

use half::f16;
use qera_core::dtype::FloatDtype;

use crate::formats::gguf::block_type::BlockType;
use crate::formats::gguf::blocks::encode::{BLOCK, SymmetricBlock};
use crate::formats::safetensors::header::{dtype_name, encode};

/// The largest code. -128 is never used, so that a number and its negative are treated alike.
const CODE_MAX: i8 = 127;

/// The type in which the elements of A and B are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FactorType {
    /// Numbers that stand alone.
    Float(FloatDtype),
    /// Blocks of a GGUF.
    Q8_0,
}

impl FactorType {
    /// All types.
    pub(crate) const ALL: [Self; 4] = [
        Self::F32,
        Self::F16,
        Self::Float(FloatDtype::Bf16),
        Self::Q8_0,
    ];
    /// The type that loses nothing.
    pub(crate) const F32: Self = Self::Float(FloatDtype::F32);
    const F16: Self = Self::Float(FloatDtype::F16);

    /// The type's name as `--dtype` takes it.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Float(dtype) => dtype.name(),
            Self::Q8_0 => "q8_0",
        }
    }

    /// The type with this name in `--dtype`.
    #[must_use]
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|of| of.name() == name)
    }

    /// The type with this name in a GGUF, if qera writes it.
    #[must_use]
    pub(crate) fn of_block_type(block_type: BlockType) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|of| of.block_type() == block_type)
    }

    /// The type's name in files and in the manifest.
    #[must_use]
    pub(crate) fn written_name(self) -> String {
        match self {
            Self::Float(dtype) => dtype_name(dtype).to_string(),
            Self::Q8_0 => self.block_type().to_string(),
        }
    }

    /// The float type that holds these numbers where the file is no GGUF.
    #[must_use]
    pub(crate) const fn float(self) -> FloatDtype {
        match self {
            Self::Float(dtype) => dtype,
            Self::Q8_0 => FloatDtype::F32,
        }
    }

    /// This type and, in order, the wider types that are tried where it is not good enough. After
    /// the last of them comes f32.
    #[must_use]
    pub(crate) const fn before_f32(self) -> &'static [Self] {
        match self {
            Self::Float(FloatDtype::F32) => &[],
            Self::Float(FloatDtype::F16) => &[Self::F16],
            Self::Float(FloatDtype::Bf16) => &[Self::Float(FloatDtype::Bf16)],
            Self::Q8_0 => &[Self::Q8_0, Self::F16],
        }
    }

    /// How many numbers are written together.
    const fn block(self) -> usize {
        match self {
            Self::Float(_) => 1,
            Self::Q8_0 => BLOCK,
        }
    }

    /// Bits of a number, with its share of the block's scale.
    #[must_use]
    pub(crate) const fn bits(self) -> f64 {
        8.0 * self.block_bytes() as f64 / self.block() as f64
    }

    const fn block_bytes(self) -> usize {
        match self {
            Self::Float(dtype) => dtype.size_bytes(),
            Self::Q8_0 => SymmetricBlock::Q8_0.bytes(),
        }
    }

    /// Whether rows of this length are whole blocks. A's rows cannot be padded.
    #[must_use]
    pub(crate) const fn holds_rows_of(self, length: usize) -> bool {
        length.is_multiple_of(self.block())
    }

    /// The rank that A and B are padded to: the rows of `lora_b` have the rank's length, and must
    /// be whole blocks.
    #[must_use]
    pub(crate) const fn padded_rank(self, rank: usize) -> usize {
        rank.next_multiple_of(self.block())
    }

    /// The type in which a layer of this width is written, unless it loses too much.
    #[must_use]
    pub(crate) fn for_width(self, in_features: usize) -> Self {
        let mut types = self.before_f32().iter().copied();
        types
            .find(|of| of.holds_rows_of(in_features))
            .unwrap_or(Self::F32)
    }

    /// Bytes of A and B, m x k and k x n, as they are written.
    #[must_use]
    pub(crate) const fn bytes(self, m: usize, n: usize, rank: usize) -> usize {
        self.padded_rank(rank) * (m + n) / self.block() * self.block_bytes()
    }

    /// The type's name in a GGUF.
    #[must_use]
    pub(crate) const fn block_type(self) -> BlockType {
        match self {
            Self::Float(FloatDtype::F32) => BlockType::F32,
            Self::Float(FloatDtype::F16) => BlockType::F16,
            Self::Float(FloatDtype::Bf16) => BlockType::BF16,
            Self::Q8_0 => SymmetricBlock::Q8_0.block_type(),
        }
    }

    /// Rounds to what a reader will see; `values` are rows of length `row`, one after the other.
    /// Where a number overflows, its whole block becomes infinite or NaN.
    pub(crate) fn round(self, values: &mut [f32], row: usize) {
        match self {
            Self::Float(dtype) => values.iter_mut().for_each(|x| *x = dtype.round(*x)),
            Self::Q8_0 => {
                let rows = values.chunks_mut(row.max(1));
                rows.for_each(|row| row.chunks_mut(BLOCK).for_each(round_block));
            }
        }
    }

    /// The bytes of numbers that are rounded already; `values` are rows of length `row`, one after
    /// the other. The bytes read back to the same numbers. A last block that a row does not fill is
    /// padded with zeros.
    #[must_use]
    pub(crate) fn encode(&self, values: &[f32], row: usize) -> Vec<u8> {
        match *self {
            Self::Float(dtype) => encode(values, dtype),
            Self::Q8_0 => {
                let mut bytes = Vec::new();
                let blocks = values.chunks(row.max(1)).flat_map(|row| row.chunks(BLOCK));
                for block in blocks {
                    let scale = scale_of_rounded(block);
                    let mut codes = [0; BLOCK];
                    let numbers = codes.iter_mut().zip(block);
                    numbers.for_each(|(code, x)| *code = nearest_code(*x, scale));
                    SymmetricBlock::Q8_0.put(scale, &codes, &mut bytes);
                }
                bytes
            }
        }
    }
}

/// The largest magnitude; NaN where one of the numbers is NaN.
fn largest(block: &[f32]) -> f32 {
    let magnitudes = block.iter().map(|x| x.abs());
    magnitudes.fold(0.0, |most, x| if x > most || x.is_nan() { x } else { most })
}

/// The scale d for the largest magnitude of a block: 0 for zeros, infinite where f16 has none so
/// large.
pub(crate) fn scale_for(largest: f32) -> f16 {
    let scale = f16::from_f32(largest / f32::from(CODE_MAX));
    let reaches = (f32::from(CODE_MAX) + 0.5) * scale.to_f32();
    if reaches < largest {
        return f16::from_bits(scale.to_bits() + 1);
    }
    scale
}

/// The code nearest to x under a scale, halves away from zero; 0 where the scale is 0 or infinite.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a whole number that i8 holds, or NaN, which becomes 0"
)]
fn nearest_code(x: f32, scale: f16) -> i8 {
    let most = f32::from(CODE_MAX);
    (x / scale.to_f32()).round().clamp(-most, most) as i8
}

/// The number nearest to x under a scale.
pub(crate) fn nearest_in_block(x: f32, scale: f16) -> f32 {
    f32::from(nearest_code(x, scale)) * scale.to_f32()
}

fn round_block(block: &mut [f32]) {
    let scale = scale_for(largest(block));
    let rounded = |x: &mut f32| *x = nearest_in_block(*x, scale);
    block.iter_mut().for_each(rounded);
}

/// A scale under which every number is one of the block's. Not every rounding gives the largest
/// number the largest code, so that each code is tried for it.
fn scale_of_rounded(block: &[f32]) -> f16 {
    let largest = largest(block);
    let explains = |scale: &f16| {
        let same = |x: &f32| nearest_in_block(*x, *scale).to_bits() == (x + 0.0).to_bits();
        block.iter().all(same)
    };
    let mut scales = (1..=CODE_MAX)
        .rev()
        .map(|code| f16::from_f32(largest / f32::from(code)));
    scales.find(explains).unwrap_or_else(|| scale_for(largest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::blocks::decode_gguf_blocks;
    use crate::host::rounding::narrow;
    use qera_core::pseudo_random::SplitMix64;

    const ROW: usize = 96;

    /// Rows with blocks of every size, from far below f16's range to nearly its largest scale. Some
    /// blocks are zero, some have one number far above the others.
    fn rows(sequence: &mut SplitMix64, exponents: core::ops::Range<i32>) -> Vec<f32> {
        let blocks = exponents.flat_map(|exponent| {
            let size = 2_f64.powi(exponent) * (1.0 + sequence.next_symmetric().abs());
            (0..ROW)
                .map(|i| match i {
                    0..BLOCK => size * sequence.next_symmetric(),
                    BLOCK..64 => 0.0,
                    64 => -size,
                    _ => 0.01 * size * sequence.next_symmetric(),
                })
                .map(narrow)
                .collect::<Vec<f32>>()
        });
        blocks.collect()
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    fn read(of: FactorType, bytes: &[u8]) -> Vec<f32> {
        decode_gguf_blocks(of.block_type().number(), bytes).unwrap()
    }

    #[test]
    fn what_is_encoded_reads_back_to_the_numbers_that_were_measured() {
        let mut sequence = SplitMix64::new(13);
        let rows = rows(&mut sequence, -40..15);
        for of in FactorType::ALL {
            let mut rounded = rows.clone();
            of.round(&mut rounded, ROW);
            let bytes = of.encode(&rounded, ROW);
            let expected = of.bits() / 8.0 * rows.len() as f64;
            assert!((bytes.len() as f64 - expected).abs() < 0.5, "{}", of.name());
            let again = read(of, &bytes);
            let same = again.iter().zip(&rounded).all(|(x, y)| x - y == 0.0);
            assert!(same, "{}", of.name());
            assert_eq!(of.encode(&again, ROW), bytes, "{}", of.name());
        }
    }

    /// Codes that no rounding to nearest gives: none of them is the largest.
    #[test]
    fn blocks_without_the_largest_code_keep_their_numbers() {
        let mut sequence = SplitMix64::new(14);
        for scale in [0x0001, 0x0205, 0x0400, 0x3555, 0x7bff].map(f16::from_bits) {
            for most in [1.0, 2.0, 63.0, 64.0, 126.0] {
                let code = |_| (most * sequence.next_symmetric()).round();
                let codes: Vec<f64> = (0..BLOCK).map(code).collect();
                let value = |code: &f64| narrow(*code) * scale.to_f32() + 0.0;
                let values: Vec<f32> = codes.iter().map(value).collect();
                let bytes = FactorType::Q8_0.encode(&values, BLOCK);
                assert_eq!(bits(&read(FactorType::Q8_0, &bytes)), bits(&values));
            }
        }
    }

    /// Zeros beyond the rank change no number and no scale.
    #[test]
    fn a_padded_row_has_the_same_numbers() {
        let mut sequence = SplitMix64::new(15);
        let (rank, rows) = (41, 7);
        let padded_rank = FactorType::Q8_0.padded_rank(rank);
        assert_eq!(padded_rank, 64);
        let mut values: Vec<f32> = (0..rank * rows)
            .map(|_| narrow(sequence.next_symmetric()))
            .collect();
        let mut padded: Vec<f32> = values
            .chunks(rank)
            .flat_map(|row| {
                let zeros = core::iter::repeat_n(0.0, padded_rank - rank);
                row.iter().copied().chain(zeros).collect::<Vec<_>>()
            })
            .collect();
        FactorType::Q8_0.round(&mut values, rank);
        FactorType::Q8_0.round(&mut padded, padded_rank);
        let kept = padded.chunks(padded_rank).flat_map(|row| &row[..rank]);
        assert_eq!(bits(&kept.copied().collect::<Vec<_>>()), bits(&values));
        let bytes = FactorType::Q8_0.encode(&values, rank);
        assert_eq!(bytes, FactorType::Q8_0.encode(&padded, padded_rank));
        assert_eq!(bytes.len(), FactorType::Q8_0.bytes(0, rows, rank));
    }

    /// ggml's rounding, as its `quantize_row_q8_0_ref` has it.
    fn as_ggml(block: &[f32]) -> Vec<f32> {
        let d = largest(block) / 127.0;
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        let stored = f16::from_f32(d).to_f32();
        let rounded = |x: &f32| (x * inverse).round() * stored;
        block.iter().map(rounded).collect()
    }

    /// The error is at most half a step for every number, and for numbers of any size no larger
    /// than ggml's.
    #[test]
    fn the_error_is_at_most_half_a_step_and_no_more_than_of_ggml() {
        let mut sequence = SplitMix64::new(16);
        for exponent in -30..15 {
            let values: Vec<f32> = (0..20)
                .flat_map(|_| rows(&mut sequence, exponent..exponent + 1))
                .collect();
            let mut rounded = values.clone();
            FactorType::Q8_0.round(&mut rounded, ROW);
            let (mut ours, mut ggml) = (0.0, 0.0);
            for (block, rounded) in values.chunks(BLOCK).zip(rounded.chunks(BLOCK)) {
                let most = 0.5001 * scale_for(largest(block)).to_f32();
                let error = |(x, y): (&f32, &f32)| f64::from((x - y).abs());
                let errors = block.iter().zip(rounded).map(error);
                assert!(errors.clone().all(|e| e <= f64::from(most)), "{block:?}");
                ours += errors.map(|e| e * e).sum::<f64>();
                let theirs = as_ggml(block);
                let errors = block.iter().zip(&theirs).map(error);
                ggml += errors.map(|e| e * e).sum::<f64>();
            }
            assert!(ours <= 1.001 * ggml, "2^{exponent}: {ours:e} {ggml:e}");
        }
    }

    /// A scale that f16 does not hold is no number, so that nobody takes the block for one.
    #[test]
    fn what_overflows_is_not_finite() {
        let mut values = [1.0; 2 * BLOCK];
        values[3] = 127.0 * 65_520.0;
        FactorType::Q8_0.round(&mut values, 2 * BLOCK);
        assert!(values[..BLOCK].iter().all(|x| !x.is_finite()));
        assert!(values[BLOCK..].iter().all(|x| (x - 1.0).abs() < 1e-3));
        values = [1.0; 2 * BLOCK];
        values[40] = 127.0 * 65_500.0;
        FactorType::Q8_0.round(&mut values, 2 * BLOCK);
        assert!(values.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn sizes_are_those_of_the_format() {
        for of in FactorType::ALL {
            assert_eq!(FactorType::named(of.name()), Some(of));
        }
        assert_eq!(FactorType::named("q4_0"), None);
        let bits = FactorType::ALL.map(|of| of.bits().to_string());
        assert_eq!(bits, ["32", "16", "16", "8.5"]);
        // Rank 64 in q8_0 takes the bytes of rank 34 in f16.
        let [f16, q8_0] = [FactorType::F16, FactorType::Q8_0];
        assert_eq!(q8_0.bytes(576, 1536, 64), f16.bytes(576, 1536, 34));
        assert_eq!(q8_0.for_width(576), q8_0);
        assert_eq!(q8_0.for_width(100), f16);
        assert_eq!(FactorType::F32.for_width(100), FactorType::F32);
    }
}
