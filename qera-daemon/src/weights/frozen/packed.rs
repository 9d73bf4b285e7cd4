//! W~ of a layer as it is kept: for each weight the number of its level, in as few bits as the grid
//! needs, and for each block what its levels are. This knows only levels, no formats, and gives the
//! exact numbers back.

use core::cmp::Ordering;

use qera_core::quantize::Levels;

use crate::error::Fatal;
use crate::host::kernels::page_vec::PageVec;

/// 2^23: between this and 2^24 neighbouring f32 numbers are 1 apart.
const SPACING_ONE: f32 = 8_388_608.0;
/// The most levels of a block, because a code is at most a byte.
const LEVELS_MAX: f32 = 256.0;
/// Numbers that are unpacked at a time, in whole rows.
const UNPACKED: usize = 1 << 16;

/// The shape of W~ and of its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedShape {
    /// in_features m.
    pub(crate) in_features: usize,
    /// out_features n.
    pub(crate) out_features: usize,
    /// How many neighbours along in_features share their levels.
    pub(crate) block_size: usize,
}

/// W~ of a layer, packed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PackedLayer {
    /// The shape of W~.
    pub(crate) shape: PackedShape,
    /// Bits of a code.
    pub(crate) bits: u32,
    /// The codes. Every row begins at a new byte; the lowest bits come first.
    pub(crate) codes: PageVec<u8>,
    /// The distance between two levels, by rows and blocks.
    pub(crate) steps: Vec<f32>,
    /// The integer of the lowest level: one for all blocks, or by rows and blocks.
    pub(crate) lowest: Vec<f32>,
}

/// Why W~ cannot be packed. This would be a defect of whoever rounded.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub(crate) enum PackError {
    /// A number lies between two levels.
    #[error(
        "row {row}, column {column}: {value:?} is none of the levels of its block (this is a defect, please report it)"
    )]
    NoLevel {
        /// The number's output.
        row: usize,
        /// The number's input.
        column: usize,
        /// The number.
        value: f32,
    },
    /// A block has more levels than a byte has values, or its lowest or highest level is NaN.
    #[error(
        "row {row}, block {block}: levels from {lowest} to {highest} (this is a defect, please report it)"
    )]
    Levels {
        /// The block's output.
        row: usize,
        /// The block's place among the output's blocks.
        block: usize,
        /// The lowest integer.
        lowest: f32,
        /// The highest integer.
        highest: f32,
    },
}

impl PackedShape {
    /// The number of blocks in a row.
    pub(crate) const fn blocks(&self) -> usize {
        self.in_features.div_ceil(self.block_size)
    }

    /// The number of bytes of a row's codes.
    pub(crate) const fn row_bytes(&self, bits: u32) -> usize {
        (self.in_features * bits as usize).div_ceil(8)
    }
}

impl PackedLayer {
    /// Packs W~ by columns (`[out_features, in_features]`), given the levels of its blocks by rows.
    ///
    /// # Errors
    /// [`PackError`].
    pub(crate) fn pack(
        shape: PackedShape,
        values: &[f32],
        levels: &[Levels],
    ) -> Result<Self, PackError> {
        let PackedShape {
            in_features: m,
            block_size,
            ..
        } = shape;
        let bits = bits(shape, levels)?;
        let row_bytes = shape.row_bytes(bits);
        let mut codes = PageVec::zeroed(shape.out_features * row_bytes);
        let rows = values.chunks_exact(m).zip(levels.chunks(shape.blocks()));
        for ((row, (values, levels)), codes) in
            rows.enumerate().zip(codes.chunks_exact_mut(row_bytes))
        {
            for (column, &value) in values.iter().enumerate() {
                let of = levels[column / block_size];
                let integer = of.integer(value);
                let level = integer * of.step;
                // NaN is equal to nothing.
                if level.partial_cmp(&value) != Some(Ordering::Equal) {
                    return Err(PackError::NoLevel { row, column, value });
                }
                let code = byte(integer - of.lowest);
                put(codes, column * bits as usize, code);
            }
        }
        let first = levels.first().map_or(0.0, |of| of.lowest);
        let all: Vec<f32> = levels.iter().map(|of| of.lowest).collect();
        let same = all.iter().all(|of| of.to_bits() == first.to_bits());
        Ok(Self {
            shape,
            bits,
            codes,
            steps: levels.iter().map(|of| of.step).collect(),
            lowest: if same { vec![first] } else { all },
        })
    }

    /// Unpacks rows from `first` on, as many as `out` holds.
    pub(crate) fn unpack(&self, first: usize, out: &mut [f32]) {
        let (m, blocks) = (self.shape.in_features, self.shape.blocks());
        let row_bytes = self.shape.row_bytes(self.bits);
        let codes = self.codes.chunks_exact(row_bytes).skip(first);
        for ((row, codes), out) in codes.enumerate().zip(out.chunks_exact_mut(m)) {
            let begin = (first + row) * blocks;
            for (block, out) in out.chunks_mut(self.shape.block_size).enumerate() {
                let step = self.steps[begin + block];
                let lowest = self.lowest_of(begin + block);
                let at = block * self.shape.block_size;
                for (column, out) in out.iter_mut().enumerate() {
                    let code = take(codes, (at + column) * self.bits as usize, self.bits);
                    *out = (f32::from(code) + lowest) * step;
                }
            }
        }
    }

    /// The integer of a block's lowest level; blocks are counted over all rows.
    pub(crate) fn lowest_of(&self, block: usize) -> f32 {
        match self.lowest[..] {
            [one] => one,
            _ => self.lowest[block],
        }
    }

    /// The code of a block's level 0; blocks are counted over all rows.
    pub(crate) fn zero_point_of(&self, block: usize) -> u8 {
        byte(-self.lowest_of(block))
    }

    /// The distances between levels in the blocks of a row.
    pub(crate) fn steps_of(&self, row: usize) -> &[f32] {
        let blocks = self.shape.blocks();
        &self.steps[row * blocks..][..blocks]
    }

    /// Writes a row's integers plus `offset` as bytes; without an offset, the codes, which count
    /// from each block's lowest level.
    pub(crate) fn codes_of(&self, row: usize, offset: Option<f32>, codes: &mut [u8]) {
        let (size, blocks) = (self.shape.block_size, self.shape.blocks());
        let row_bytes = self.shape.row_bytes(self.bits);
        let stored = &self.codes[row * row_bytes..][..row_bytes];
        for (block, codes) in codes.chunks_mut(size).enumerate() {
            let shift = offset.map_or(0.0, |by| self.lowest_of(row * blocks + block) + by);
            for (place, code) in codes.iter_mut().enumerate() {
                let at = (block * size + place) * self.bits as usize;
                *code = byte(f32::from(take(stored, at, self.bits)) + shift);
            }
        }
    }

    /// Gives all rows to `each`, some at a time, with the index of the first number.
    ///
    /// # Errors
    /// Any error of `each`.
    pub(crate) fn pieces(
        &self,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), Fatal>,
    ) -> Result<(), Fatal> {
        let (m, n) = (self.shape.in_features, self.shape.out_features);
        let rows = (UNPACKED / m).max(1);
        let mut memory = vec![0.0; rows.min(n) * m];
        for first in (0..n).step_by(rows) {
            let piece = &mut memory[..rows.min(n - first) * m];
            self.unpack(first, piece);
            each(first * m, piece)?;
        }
        Ok(())
    }

    /// BLAKE3 of codes, steps and lowest integers.
    #[must_use]
    pub(crate) fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let PackedShape {
            in_features,
            out_features,
            block_size,
        } = self.shape;
        let form = format!("{out_features} {in_features} {block_size} {}\0", self.bits);
        hasher.update(form.as_bytes());
        hasher.update(&self.codes);
        for numbers in [&self.steps, &self.lowest] {
            for number in numbers {
                hasher.update(&number.to_le_bytes());
            }
        }
        format!("blake3:{}", hasher.finalize().to_hex())
    }
}

/// The bits that the codes need.
fn bits(shape: PackedShape, levels: &[Levels]) -> Result<u32, PackError> {
    let mut most = 1;
    for (index, of) in levels.iter().enumerate() {
        let Levels {
            lowest, highest, ..
        } = *of;
        let span = highest - lowest;
        if !(0.0..LEVELS_MAX).contains(&span) {
            return Err(PackError::Levels {
                row: index / shape.blocks(),
                block: index % shape.blocks(),
                lowest,
                highest,
            });
        }
        most = most.max(u8::BITS - byte(span).leading_zeros());
    }
    Ok(most)
}

/// The integer as a byte; it is from 0 to 255.
const fn byte(integer: f32) -> u8 {
    (integer + SPACING_ONE).to_bits().to_le_bytes()[0]
}

/// Writes a code at this bit. Its bits must be zero before.
fn put(codes: &mut [u8], bit: usize, code: u8) {
    let [low, high] = (u16::from(code) << (bit % 8)).to_le_bytes();
    codes[bit / 8] |= low;
    if let Some(next) = codes.get_mut(bit / 8 + 1) {
        *next |= high;
    }
}

/// Reads the code at this bit.
fn take(codes: &[u8], bit: usize, bits: u32) -> u8 {
    let high = codes.get(bit / 8 + 1).copied().unwrap_or_default();
    let both = u16::from_le_bytes([codes[bit / 8], high]) >> (bit % 8);
    both.to_le_bytes()[0] & (u8::MAX >> (u8::BITS - bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(step: f32, lowest: f32, highest: f32) -> Levels {
        Levels {
            step,
            lowest,
            highest,
        }
    }

    /// Two rows of 7 inputs in blocks of 4, with every level of each block.
    fn round_trip(of: &[Levels; 4]) -> PackedLayer {
        let shape = PackedShape {
            in_features: 7,
            out_features: 2,
            block_size: 4,
        };
        let value = |index: usize| {
            let (row, column) = (index / 7, index % 7);
            let of = of[row * 2 + column / 4];
            let count = usize::from(byte(of.highest - of.lowest)) + 1;
            (of.lowest + (index * 5 % count) as f32) * of.step
        };
        let values: Vec<f32> = (0..14).map(value).collect();
        let packed = PackedLayer::pack(shape, &values, of).unwrap();
        let mut back = vec![f32::NAN; 14];
        packed.unpack(0, &mut back);
        assert_eq!(back, values);
        let mut codes = [0; 7];
        for row in 0..2 {
            packed.codes_of(row, None, &mut codes);
            for (column, code) in codes.into_iter().enumerate() {
                let block = row * 2 + column / 4;
                let integer = f32::from(code) + packed.lowest_of(block);
                let step = packed.steps_of(row)[column / 4];
                assert_eq!(
                    (integer * step).to_bits(),
                    values[row * 7 + column].to_bits()
                );
            }
            let first = packed.lowest_of(row * 2);
            packed.codes_of(row, Some(-first), &mut codes[..4]);
            let mut counted = [0; 4];
            packed.codes_of(row, None, &mut counted);
            assert_eq!(codes[..4], counted);
        }
        let mut second = vec![f32::NAN; 7];
        packed.unpack(1, &mut second);
        assert_eq!(second, values[7..]);
        packed
    }

    #[test]
    fn what_is_packed_comes_back() {
        for bits in 2..=8_u32 {
            let most = ((1_u32 << (bits - 1)) - 1) as f32;
            let same = [0.5, 0.25, 3.0, -0.125].map(|step| levels(step, -most, most));
            let packed = round_trip(&same);
            assert_eq!((packed.bits, packed.lowest.len()), (bits, 1));
            assert_eq!(packed.codes.len(), 2 * (7 * bits as usize).div_ceil(8));
            let zero_points = [0.0, 1.0, 2.0, 3.0].map(|zero| {
                let highest = ((1_u32 << bits) - 1) as f32;
                levels(0.3, -zero, highest - zero)
            });
            let packed = round_trip(&zero_points);
            assert_eq!((packed.bits, packed.lowest.len()), (bits, 4));
        }
    }

    #[test]
    fn a_number_that_is_no_level_is_named() {
        let shape = PackedShape {
            in_features: 2,
            out_features: 2,
            block_size: 2,
        };
        let of = [levels(1.0, -1.0, 1.0); 2];
        for wrong in [0.5, 2.0, f32::NAN, f32::INFINITY] {
            let error = PackedLayer::pack(shape, &[0.0, 1.0, -1.0, wrong], &of).unwrap_err();
            let said = error.to_string();
            assert!(said.starts_with("row 1, column 1"), "{said}");
        }
        let wide = [levels(1.0, -128.0, 128.0); 2];
        let error = PackedLayer::pack(shape, &[0.0; 4], &wide).unwrap_err();
        assert!(matches!(
            error,
            PackError::Levels {
                row: 0,
                block: 0,
                ..
            }
        ));
    }

    #[test]
    fn every_part_is_in_the_digest() {
        let of = [1.0, 2.0, 3.0, 4.0].map(|step| levels(step, -1.0, 1.0));
        let packed = round_trip(&of);
        let changes: [fn(&mut PackedLayer); 3] = [
            |of| of.codes[0] ^= 1,
            |of| of.steps[3] = 5.0,
            |of| of.lowest[0] = 0.0,
        ];
        for change in changes {
            let mut changed = packed.clone();
            change(&mut changed);
            assert_ne!(changed.digest(), packed.digest());
        }
        assert_eq!(packed.clone().digest(), packed.digest());
    }
}
