//! Which of ggml's blocks hold W~ of a grid exactly: those of 32 numbers around 0 with a scale in
//! f16. bf16 holds grids of few enough other bits.

use core::fmt;

use qera_core::dtype::FloatDtype;
use qera_core::quantize::Grid;

use crate::formats::gguf::block_type::BlockType;
use crate::formats::gguf::blocks::encode::{BLOCK, SymmetricBlock};

/// The form in which W~ of a layer is stored in a GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Container {
    /// The weight is stored as codes and scales.
    Blocks(SymmetricBlock),
    /// The weight is stored as bf16 numbers.
    Bf16,
}

/// Why W~ is not stored as codes and scales.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NotInBlocks {
    /// The weight's blocks have zero points.
    ZeroPoints,
    /// The weight's blocks have another size.
    BlockSize(usize),
    /// The weight's scales have another type.
    ScaleDtype(FloatDtype),
    /// The weight's rows end within a block.
    Row(usize),
    /// A scale cannot be written in f16.
    Scale {
        /// The scale's row of W~.
        row: usize,
        /// The scale's block in that row.
        block: usize,
        /// The scale.
        step: f32,
    },
    /// A block's numbers are so small that its codes are zeros, but the numbers are not.
    Tiny,
}

impl Container {
    /// The blocks that hold rows of this many numbers of a grid, provided that every scale is a
    /// number of f16.
    ///
    /// # Errors
    /// Why no blocks hold them.
    pub(crate) fn blocks_of(grid: &Grid, in_features: usize) -> Result<Self, NotInBlocks> {
        let bits = match grid {
            Grid::Mxint(mxint) => mxint.element_bits(),
            Grid::Int(int) if int.has_zero_points() => return Err(NotInBlocks::ZeroPoints),
            Grid::Int(int) if int.scale_dtype() != FloatDtype::F16 => {
                return Err(NotInBlocks::ScaleDtype(int.scale_dtype()));
            }
            Grid::Int(int) => int.element_bits(),
            Grid::Q4_0(_) => 4,
        };
        if grid.block_size() != BLOCK {
            return Err(NotInBlocks::BlockSize(grid.block_size()));
        }
        if !in_features.is_multiple_of(BLOCK) {
            return Err(NotInBlocks::Row(in_features));
        }
        Ok(Self::Blocks(match bits {
            ..=4 => SymmetricBlock::Q4_0,
            5 => SymmetricBlock::Q5_0,
            _ => SymmetricBlock::Q8_0,
        }))
    }

    /// The type in ggml.
    #[must_use]
    pub(crate) const fn block_type(self) -> BlockType {
        match self {
            Self::Blocks(of) => of.block_type(),
            Self::Bf16 => BlockType::BF16,
        }
    }

    /// The value of `general.file_type` for a file that consists mostly of this.
    #[must_use]
    pub(crate) const fn file_type(self) -> u32 {
        match self {
            Self::Blocks(SymmetricBlock::Q4_0) => 2,
            Self::Blocks(SymmetricBlock::Q5_0) => 8,
            Self::Blocks(SymmetricBlock::Q8_0) => 7,
            Self::Bf16 => 32,
        }
    }
}

/// Whether bf16, with its 8 significant bits, holds every number of a grid. A code of MXINT has 7
/// bits, and its scale is a power of two. Codes of two bits around 0 are powers of two, so that the
/// product has as many bits as its scale.
#[must_use]
pub(crate) fn bf16_holds(grid: &Grid) -> bool {
    match grid {
        Grid::Mxint(_) => true,
        Grid::Int(int) => {
            let is_short = int.element_bits() == 2 && int.scale_dtype() == FloatDtype::Bf16;
            is_short && !int.has_zero_points()
        }
        Grid::Q4_0(_) => false,
    }
}

impl fmt::Display for NotInBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroPoints => f.write_str("ggml's blocks around 0 have no zero points"),
            Self::BlockSize(size) => {
                write!(f, "its blocks have {size} numbers, ggml's {BLOCK}")
            }
            Self::ScaleDtype(dtype) => {
                write!(f, "its scales are {dtype}, those of ggml's blocks f16")
            }
            Self::Row(numbers) => write!(
                f,
                "its rows of {numbers} numbers are no whole number of blocks of {BLOCK}"
            ),
            Self::Scale { row, block, step } => write!(
                f,
                "row {row}, block {block}: its scale {step:e} is no number of f16, which ggml's \
                 blocks have"
            ),
            Self::Tiny => f.write_str("a block's numbers are below what codes and f16 scales hold"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qera_core::quantize::{Int, Mxint, Q4_0};

    fn mxint(bits: u32, block_size: usize) -> Grid {
        Grid::Mxint(Mxint::new(bits, block_size).unwrap())
    }

    fn int(bits: u32, scales: FloatDtype) -> Int {
        Int::new(bits, 32, scales).unwrap()
    }

    #[test]
    fn the_smallest_block_that_holds_the_codes_is_taken() {
        let blocks = |grid: Grid| Container::blocks_of(&grid, 64).unwrap();
        for bits in 2..=8 {
            let expected = match bits {
                2..=4 => "Q4_0",
                5 => "Q5_0",
                _ => "Q8_0",
            };
            for grid in [mxint(bits, 32), Grid::Int(int(bits, FloatDtype::F16))] {
                let found = blocks(grid);
                assert_eq!(found.block_type().name(), expected, "{grid}");
                // Block types hold all codes that the grid can have.
                let levels = grid.candidates(&[1.0, -0.3]).first();
                let Container::Blocks(of) = found else {
                    panic!("{grid}: {found:?}");
                };
                let codes = f32::from(*of.codes().start())..=f32::from(*of.codes().end());
                assert!(codes.contains(&levels.lowest) && codes.contains(&levels.highest));
            }
        }
        assert_eq!(blocks(Grid::Q4_0(Q4_0)).block_type(), BlockType::Q4_0);
        let types = [
            blocks(mxint(4, 32)),
            blocks(mxint(5, 32)),
            blocks(mxint(8, 32)),
        ];
        assert_eq!(types.map(Container::file_type), [2, 8, 7]);
        assert_eq!(Container::Bf16.file_type(), 32);
        assert_eq!(Container::Bf16.block_type(), BlockType::BF16);
    }

    #[test]
    fn what_fits_no_block_says_why_and_whether_bf16_holds_it() {
        let zero_points = Grid::Int(int(4, FloatDtype::F16).with_zero_points());
        let wide = Grid::Int(int(4, FloatDtype::Bf16));
        let two_bits = Grid::Int(int(2, FloatDtype::Bf16));
        for (grid, row, said, in_bf16) in [
            (mxint(4, 16), 64, "have 16 numbers, ggml's 32", true),
            (mxint(8, 32), 48, "rows of 48 numbers", true),
            (Grid::Q4_0(Q4_0), 40, "rows of 40 numbers", false),
            (zero_points, 64, "no zero points", false),
            (wide, 64, "scales are bf16", false),
            (two_bits, 64, "scales are bf16", true),
        ] {
            let found = Container::blocks_of(&grid, row).unwrap_err().to_string();
            assert!(found.contains(said), "{grid}: {found}");
            assert_eq!(bf16_holds(&grid), in_bf16, "{grid}");
        }
    }
}
