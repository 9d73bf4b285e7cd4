//! Any grid in packed form: the codes of a row are one stream, scales are stored block by block.
//!
//! | grid | `codes` | `scales` |
//! |---|---|---|
//! | MXINT | two's complement, least significant bit first, each row in whole bytes | E8M0, one byte a block |
//! | INT | the same, or c itself where there are zero points | the scale, little-endian, then the zero point's byte |
//! | Q4_0 | the blocks of GGUF, d and nibbles | none |
//!
//! Encoding takes values that are on the grid already, and their levels: it rounds nothing, and
//! decoding gives the same numbers bit for bit, except that -0 may become 0. Blocks of a row follow
//! each other, and so do rows.
//!
//! Cost: one pass.

use super::bit_stream::{Packer, Unpacker, row_len, sign_extended};
use super::blocks::{check_length, check_rows};
use super::error::GridError;
use super::grid::Grid;
use super::levels::Levels;
use super::q4_0::{self, SMALLEST_SCALE};

impl Grid {
    /// Says how many bytes the codes of a weight take.
    #[must_use]
    pub const fn codes_len(&self, out_features: usize, in_features: usize) -> usize {
        let row = match self {
            Self::Mxint(mxint) => row_len(in_features, mxint.element_bits()),
            Self::Int(int) => row_len(in_features, int.element_bits()),
            Self::Q4_0(_) => q4_0::row_len(in_features),
        };
        out_features.saturating_mul(row)
    }

    /// Says how many bytes the scales of a weight take.
    #[must_use]
    pub const fn scales_len(&self, out_features: usize, in_features: usize) -> usize {
        let blocks = out_features.saturating_mul(in_features.div_ceil(self.block_size()));
        blocks.saturating_mul(self.scale_len())
    }

    /// Packs values that lie on the grid.
    ///
    /// # Shapes
    /// `values` is `[out_features, in_features]`, row-major; `levels` has those of each block, rows
    /// one after the other; `codes` holds [`codes_len`](Self::codes_len) bytes and `scales`
    /// [`scales_len`](Self::scales_len).
    ///
    /// # Errors
    /// [`GridError::Length`], [`GridError::OutputLength`]; [`GridError::Levels`] for levels that
    /// [`candidates`](Self::candidates) never gives, [`GridError::OffGrid`] for a value that is
    /// none of its block's levels. `codes` and `scales` then hold unspecified bytes.
    ///
    /// ```
    /// use qera_core::quantize::{Grid, Levels, Q4_0};
    /// let (grid, values) = (Grid::Q4_0(Q4_0), [1.75, -2.0, 0.5]);
    /// let levels = [Levels { step: 0.25, lowest: -8.0, highest: 7.0 }];
    /// assert_eq!((grid.codes_len(1, 3), grid.scales_len(1, 3)), (18, 0));
    /// let (mut codes, mut out, mut found) = ([0; 18], [0.0; 3], levels);
    /// grid.encode(&values, &levels, 3, &mut codes, &mut [])?;
    /// assert_eq!(codes[..5], [0x00, 0x34, 0x8f, 0x80, 0x8a]); // 0.25 in f16; 15, 0 and 10
    /// grid.decode(&codes, &[], 3, &mut out)?;
    /// grid.levels_of(&codes, &[], 3, &mut found)?;
    /// assert_eq!((out, found), (values, levels));
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    pub fn encode(
        &self,
        values: &[f32],
        levels: &[Levels],
        in_features: usize,
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> Result<(), GridError> {
        check_rows(values.len(), in_features)?;
        let shape = self.packed_rows(values.len() / in_features, in_features);
        check_length(shape.blocks * shape.rows, levels.len())?;
        shape.check(codes, scales)?;
        for (row, values) in values.chunks_exact(in_features).enumerate() {
            let levels = &levels[row * shape.blocks..][..shape.blocks];
            let codes = &mut codes[row * shape.codes..][..shape.codes];
            let scales = &mut scales[row * shape.scales..][..shape.scales];
            match self {
                Self::Mxint(_) | Self::Int(_) => {
                    self.encode_stream(row, values, levels, codes, scales)?;
                }
                Self::Q4_0(_) => encode_blocks(row, values, levels, codes)?,
            }
        }
        Ok(())
    }

    /// Writes the numbers that a packed form stands for.
    ///
    /// # Shapes
    /// `out` is `[out_features, in_features]`, row-major; `codes` and `scales` as
    /// [`encode`](Self::encode) fills them.
    ///
    /// # Errors
    /// [`GridError::Length`], [`GridError::OutputLength`] (of `codes` or `scales`, for this `out`),
    /// and for bytes that `encode` never writes [`GridError::Scale`],
    /// [`GridError::SharedExponent`] and [`GridError::Code`]. `out` then holds unspecified numbers.
    /// A scale of 0 in Q4_0 stands for zeros.
    pub fn decode(
        &self,
        codes: &[u8],
        scales: &[u8],
        in_features: usize,
        out: &mut [f32],
    ) -> Result<(), GridError> {
        check_rows(out.len(), in_features)?;
        let shape = self.packed_rows(out.len() / in_features, in_features);
        shape.check(codes, scales)?;
        for (row, values) in out.chunks_exact_mut(in_features).enumerate() {
            let codes = &codes[row * shape.codes..][..shape.codes];
            let scales = &scales[row * shape.scales..][..shape.scales];
            self.decode_row(row, codes, scales, values)?;
        }
        Ok(())
    }

    /// Writes the levels of each block of a packed form.
    ///
    /// # Shapes
    /// `levels` has one for each block, rows one after the other; `codes` and `scales` as
    /// [`encode`](Self::encode) fills them.
    ///
    /// # Errors
    /// [`GridError::Length`] and [`GridError::OutputLength`], counted in blocks;
    /// [`GridError::Scale`] and [`GridError::SharedExponent`] for bytes that `encode` never writes.
    /// A scale of 0 in Q4_0 is read as 2^-24, whose level 0 is what it stands for.
    pub fn levels_of(
        &self,
        codes: &[u8],
        scales: &[u8],
        in_features: usize,
        levels: &mut [Levels],
    ) -> Result<(), GridError> {
        let blocks = in_features.div_ceil(self.block_size());
        check_rows(levels.len(), blocks)?;
        let shape = self.packed_rows(levels.len() / blocks, in_features);
        shape.check(codes, scales)?;
        for (row, levels) in levels.chunks_exact_mut(blocks).enumerate() {
            let codes = &codes[row * shape.codes..][..shape.codes];
            let scales = &scales[row * shape.scales..][..shape.scales];
            for (block, levels) in levels.iter_mut().enumerate() {
                *levels = self.read_levels(row, block, codes, scales)?;
                if levels.step == 0.0 {
                    levels.step = SMALLEST_SCALE;
                }
            }
        }
        Ok(())
    }

    /// Says how many bytes a block has in `scales`.
    const fn scale_len(&self) -> usize {
        match self {
            Self::Mxint(_) => 1,
            Self::Int(int) => int.scale_len(),
            Self::Q4_0(_) => 0,
        }
    }

    const fn packed_rows(&self, rows: usize, in_features: usize) -> PackedRows {
        PackedRows {
            rows,
            blocks: in_features.div_ceil(self.block_size()),
            codes: self.codes_len(1, in_features),
            scales: self.scales_len(1, in_features),
        }
    }

    /// Packs a row of MXINT or INT.
    fn encode_stream(
        &self,
        row: usize,
        values: &[f32],
        levels: &[Levels],
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> Result<(), GridError> {
        let mut packer = Packer::new(codes, self.element_bits());
        let bytes = scales.chunks_exact_mut(self.scale_len());
        let blocks = values.chunks(self.block_size());
        for (block, (values, (levels, bytes))) in blocks.zip(levels.iter().zip(bytes)).enumerate() {
            let written = match self {
                Self::Mxint(mxint) => mxint.write_exponent(levels, bytes),
                Self::Int(int) => int.write_scale(levels, bytes),
                Self::Q4_0(_) => false, // Has blocks, not streams.
            };
            if !written {
                return Err(GridError::Levels { row, block });
            }
            let zero_point = self.has_zero_points().then_some(levels.lowest);
            for (place, &value) in values.iter().enumerate() {
                let Some(integer) = integer_of(value, levels) else {
                    let column = block * self.block_size() + place;
                    return Err(GridError::OffGrid { row, column });
                };
                packer.push(lowest_byte(integer - zero_point.unwrap_or_default()));
            }
        }
        packer.finish();
        Ok(())
    }

    /// Reads a row of any grid.
    fn decode_row(
        &self,
        row: usize,
        codes: &[u8],
        scales: &[u8],
        values: &mut [f32],
    ) -> Result<(), GridError> {
        let bits = self.element_bits();
        let mut unpacker = Unpacker::new(codes, bits);
        for (block, values) in values.chunks_mut(self.block_size()).enumerate() {
            let levels = self.read_levels(row, block, codes, scales)?;
            for (place, value) in values.iter_mut().enumerate() {
                let integer = match self {
                    Self::Q4_0(_) => f32::from(q4_0::read_code(place, q4_0::block(block, codes))),
                    Self::Int(int) if int.has_zero_points() => {
                        f32::from(unpacker.next()) + levels.lowest
                    }
                    Self::Mxint(_) | Self::Int(_) => {
                        f32::from(sign_extended(unpacker.next(), bits))
                    }
                };
                if integer < levels.lowest {
                    let column = block * self.block_size() + place;
                    return Err(GridError::Code { row, column });
                }
                *value = integer * levels.step;
            }
        }
        Ok(())
    }

    /// Reads a block's levels from the bytes of its row.
    fn read_levels(
        &self,
        row: usize,
        block: usize,
        codes: &[u8],
        scales: &[u8],
    ) -> Result<Levels, GridError> {
        let scale = &scales[block * self.scale_len()..][..self.scale_len()];
        match self {
            Self::Mxint(mxint) => {
                let levels = mxint.read_exponent(scale);
                levels.ok_or(GridError::SharedExponent { row, block })
            }
            Self::Int(int) => {
                let levels = int.read_scale(scale);
                levels.ok_or(GridError::Scale { row, block })
            }
            Self::Q4_0(_) => {
                let levels = q4_0::read_scale(q4_0::block(block, codes));
                levels.ok_or(GridError::Scale { row, block })
            }
        }
    }

    /// Says how many bits a code takes.
    const fn element_bits(&self) -> u32 {
        match self {
            Self::Mxint(mxint) => mxint.element_bits(),
            Self::Int(int) => int.element_bits(),
            Self::Q4_0(_) => 4,
        }
    }

    const fn has_zero_points(&self) -> bool {
        matches!(self, Self::Int(int) if int.has_zero_points())
    }
}

/// How many bytes each part of a packed row takes.
struct PackedRows {
    rows: usize,
    /// How many blocks a row has.
    blocks: usize,
    /// How many bytes the codes of a row take.
    codes: usize,
    /// How many bytes the scales of a row take.
    scales: usize,
}

impl PackedRows {
    const fn check(&self, codes: &[u8], scales: &[u8]) -> Result<(), GridError> {
        let lent = [codes.len(), scales.len()];
        let needed = [self.codes, self.scales];
        match check_length(self.rows.saturating_mul(needed[0]), lent[0]) {
            Ok(()) => check_length(self.rows.saturating_mul(needed[1]), lent[1]),
            refused => refused,
        }
    }
}

/// Packs a row of Q4_0.
fn encode_blocks(
    row: usize,
    values: &[f32],
    levels: &[Levels],
    codes: &mut [u8],
) -> Result<(), GridError> {
    let blocks = values.chunks(q4_0::BLOCK).zip(levels);
    for (block, (values, levels)) in blocks.enumerate() {
        let bytes = q4_0::block_mut(block, codes);
        if !q4_0::write_scale(levels, bytes) {
            return Err(GridError::Levels { row, block });
        }
        for (place, &value) in values.iter().enumerate() {
            let Some(integer) = integer_of(value, levels) else {
                let column = block * q4_0::BLOCK + place;
                return Err(GridError::OffGrid { row, column });
            };
            q4_0::write_code(place, lowest_byte(integer - levels.lowest), bytes);
        }
    }
    Ok(())
}

/// Returns the integer that belongs to a value, if the value is one of the levels.
#[expect(clippy::float_cmp, reason = "it is that level or none")]
fn integer_of(value: f32, levels: &Levels) -> Option<f32> {
    let integer = levels.integer(value);
    (integer * levels.step == value).then_some(integer)
}

/// Returns the lowest byte of a small integer, two's complement.
#[expect(clippy::cast_possible_truncation, reason = "an integer of at most 255")]
const fn lowest_byte(integer: f32) -> u8 {
    (integer as i32).to_le_bytes()[0]
}
