//! Rounding to nearest, which also returns the levels that it used.
//!
//! The values are those of [`Grid::quantize_dequantize`], by the rule of the grid (Q4_0's halves go
//! up, the others' to even); one exception: an MXINT block whose magnitudes are all below 2^-94
//! has the levels of 2^-94 here, so that whatever rounds on can use them.
//!
//! Cost: about 10 flops an element.

use super::super::blocks::{check_length, check_rows, quantize_blocks};
use super::super::error::GridError;
use super::super::grid::Grid;
use super::super::levels::Levels;

/// Rounds a weight to nearest.
///
/// # Shapes
/// `weight` is `[out_features, in_features]`, row-major, and `values`, W~, the same; `levels` has
/// one for each block, rows one after the other.
///
/// # Errors
/// [`GridError::Length`], [`GridError::OutputLength`]; [`GridError::NonFinite`] for the first
/// infinite or NaN weight, `values` and `levels` being unspecified then.
///
/// ```
/// use qera_core::quantize::{Grid, Mxint, round};
/// let grid = Grid::Mxint(Mxint::new(4, 4)?);
/// let (mut values, mut levels) = ([0.0; 4], [grid.candidates(&[0.0]).first()]);
/// round::nearest(&grid, &[0.1, -0.25, 0.3, 0.9], 4, &mut values, &mut levels)?;
/// assert_eq!(values, [0.125, -0.25, 0.25, 0.875]);
/// assert_eq!((levels[0].step, levels[0].lowest, levels[0].highest), (0.125, -7.0, 7.0));
/// # Ok::<(), qera_core::quantize::GridError>(())
/// ```
pub fn nearest(
    grid: &Grid,
    weight: &[f32],
    in_features: usize,
    values: &mut [f32],
    levels: &mut [Levels],
) -> Result<(), GridError> {
    let block_size = grid.block_size();
    check_rows(weight.len(), in_features)?;
    let blocks = weight.len() / in_features * in_features.div_ceil(block_size);
    check_length(blocks, levels.len())?;
    let mut levels = levels.iter_mut();
    quantize_blocks(weight, in_features, block_size, values, |x, rounded| {
        let own = grid.candidates(x).first();
        if let Some(levels) = levels.next() {
            *levels = own;
        }
        match grid {
            Grid::Q4_0(q4_0) => q4_0.quantize_block(x, rounded),
            Grid::Mxint(_) | Grid::Int(_) => {
                for (rounded, &x) in rounded.iter_mut().zip(x) {
                    *rounded = own.nearest(x);
                }
            }
        }
        x.iter().all(|x| x.is_finite())
    })
}
