//! Encodes the blocks that are written: 32 codes around 0 with one f16 scale. They hold every
//! number d c, with a whole c in their range, exactly; `legacy` reads the same bits.

#[cfg(test)]
use core::ops::RangeInclusive;

use half::f16;

use crate::formats::gguf::block_type::BlockType;

/// Numbers of a block.
pub(crate) const BLOCK: usize = 32;

/// A type of blocks with a scale and codes around 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SymmetricBlock {
    Q4_0,
    Q5_0,
    Q8_0,
}

impl SymmetricBlock {
    /// All such types, the smallest first.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Q4_0, Self::Q5_0, Self::Q8_0];

    /// The type as every reader knows it.
    #[must_use]
    pub(crate) const fn block_type(self) -> BlockType {
        match self {
            Self::Q4_0 => BlockType::Q4_0,
            Self::Q5_0 => BlockType::Q5_0,
            Self::Q8_0 => BlockType::Q8_0,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub(crate) const fn bytes(self) -> usize {
        self.block_type().block_bytes()
    }

    /// The codes that a block can hold.
    #[cfg(test)]
    pub(crate) const fn codes(self) -> RangeInclusive<i8> {
        match self {
            Self::Q4_0 => -8..=7,
            Self::Q5_0 => -16..=15,
            Self::Q8_0 => i8::MIN..=i8::MAX,
        }
    }

    /// Appends a block, which reads back as scale times code. Codes have 4, 5 or 8 bits around 0
    /// (two's complement); of a code outside of that range only the lowest bits are kept.
    pub(crate) fn put(self, scale: f16, codes: &[i8; BLOCK], out: &mut Vec<u8>) {
        out.extend(scale.to_le_bytes());
        let counted = |offset: i8| codes.map(|code| code.wrapping_add(offset).cast_unsigned());
        match self {
            Self::Q4_0 => out.extend(nibbles(&counted(8))),
            Self::Q5_0 => {
                let counted = counted(16);
                out.extend(fifth_bits(&counted).to_le_bytes());
                out.extend(nibbles(&counted));
            }
            Self::Q8_0 => out.extend(counted(0)),
        }
    }
}

/// The lowest four bits of each code: those of the first half in low nibbles, those of the second
/// half in high ones.
fn nibbles(counted: &[u8; BLOCK]) -> [u8; BLOCK / 2] {
    core::array::from_fn(|j| counted[j] & 15 | (counted[j + BLOCK / 2] & 15) << 4)
}

/// The fifth bit of each code, the first code's in the lowest place.
fn fifth_bits(counted: &[u8; BLOCK]) -> u32 {
    let bits = counted.iter().enumerate();
    bits.fold(0, |all, (j, code)| all | u32::from(code >> 4 & 1) << j)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::gguf::blocks::decode_gguf_blocks;

    /// Tests every code at every place, with scales from the smallest to the largest, of either
    /// sign.
    #[test]
    fn what_is_written_reads_back_bit_for_bit() {
        let scales = [
            0x0001, 0x03ff, 0x0400, 0x3555, 0x3c00, 0x7bff, 0, 0x8001, 0xb555,
        ];
        for of in SymmetricBlock::ALL {
            let range = of.codes();
            let count = usize::from(range.end().abs_diff(*range.start())) + 1;
            let all: Vec<i8> = range.collect();
            let (mut blocks, mut expected) = (Vec::new(), Vec::new());
            for (scale, first) in (0..count).map(|first| (scales[first % scales.len()], first)) {
                let scale = f16::from_bits(scale);
                let codes = core::array::from_fn(|j| all[(first + 7 * j) % count]);
                let before = blocks.len();
                of.put(scale, &codes, &mut blocks);
                assert_eq!(blocks.len() - before, of.bytes());
                expected.extend(codes.map(|code| (f32::from(code) * scale.to_f32()).to_bits()));
            }
            let read = decode_gguf_blocks(of.block_type().number(), &blocks).unwrap();
            let read: Vec<u32> = read.into_iter().map(f32::to_bits).collect();
            assert_eq!(read, expected, "{of:?}");
        }
    }

    /// The bytes are those of ggml's layouts.
    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut codes = [0; BLOCK];
        (codes[0], codes[16], codes[31]) = (-3, 7, -8);
        let block = |of: SymmetricBlock| {
            let mut bytes = Vec::new();
            of.put(f16::from_f32(0.5), &codes, &mut bytes);
            bytes
        };
        let q4_0 = block(SymmetricBlock::Q4_0);
        assert_eq!(q4_0[..4], [0x00, 0x38, 0xf5, 0x88]);
        assert_eq!(q4_0[17], 0x08);
        let q5_0 = block(SymmetricBlock::Q5_0);
        // -3 + 16 = 13 and -8 + 16 = 8 have no fifth bit.
        assert_eq!(q5_0[..8], [0x00, 0x38, 0xfe, 0xff, 0xff, 0x7f, 0x7d, 0x00]);
        assert_eq!(q5_0[21], 0x80);
        let q8_0 = block(SymmetricBlock::Q8_0);
        assert_eq!((q8_0[2], q8_0[18], q8_0[33]), (0xfd, 7, 0xf8));
    }

    /// A code that is too large becomes another one, but changes no other code.
    #[test]
    fn a_code_beyond_the_range_stays_in_its_place() {
        for (of, beyond, read) in [
            (SymmetricBlock::Q4_0, 8, -8.0),
            (SymmetricBlock::Q5_0, -17, 15.0),
        ] {
            let mut codes = [1; BLOCK];
            codes[3] = beyond;
            let mut bytes = Vec::new();
            of.put(f16::ONE, &codes, &mut bytes);
            let values = decode_gguf_blocks(of.block_type().number(), &bytes).unwrap();
            let expected: Vec<f32> = (0..BLOCK)
                .map(|j| if j == 3 { read } else { 1.0 })
                .collect();
            assert_eq!(values, expected, "{of:?}");
        }
    }
}
