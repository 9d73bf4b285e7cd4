//! Tells whether given numbers could be a W~ of a grid, from the numbers alone.
//!
//! MXINT: quantizing to nearest changes nothing, whatever exponents the rounding chose, because the
//! largest magnitude of a block keeps its exponent or lowers it, and finer levels hold the coarser
//! ones. Free scales are not found again so: rounding may have shrunk them. A block lies on such a
//! grid when one scale explains it: its smallest magnitude v other than 0 is an integer c from 1 to
//! 2^b - 1 times the scale s, and every other value an integer times the same s, all of them codes
//! of one block. So each c is tried with s = v / c, rounded to the scale's type; an f32 product
//! c s was rounded, therefore s lies within an ulp of the quotient, itself rounded, and two
//! neighbours at either side are tried too.
//!
//! Cost: up to 5 x 2^b passes over a block that is not on the grid; mostly the second value ends
//! one. Meant for samples.

use super::blocks::check_rows;
use super::grid::Grid;
use crate::dtype::FloatDtype;

/// A grid with a free scale, and the least and the largest integer that a block may use.
struct FreeScale {
    dtype: FloatDtype,
    most: u8,
    fits: fn(&Integers, f32) -> bool,
}

/// The least and the largest integer of a block; 0 is always in between.
struct Integers {
    least: f32,
    largest: f32,
}

impl Grid {
    /// Says whether each block's values could be levels of one block of this grid.
    ///
    /// # Shapes
    /// `values` is `[out_features, in_features]`, row-major; other lengths are on no grid.
    ///
    /// # Numerics
    /// Numbers of a W~ of this grid always are, whichever scales its rounding chose. Subnormal
    /// numbers count as 0 for MXINT.
    ///
    /// ```
    /// use qera_core::{dtype::FloatDtype, quantize::{Grid, Int}};
    /// let int4 = Grid::Int(Int::new(4, 32, FloatDtype::F16)?);
    /// assert!(int4.holds(&[0.0, 1.5, -2.0, 0.25], 4));
    /// assert!(!int4.holds(&[1.5, -2.0, 0.26], 3));
    /// # Ok::<(), qera_core::quantize::GridError>(())
    /// ```
    #[must_use]
    pub fn holds(&self, values: &[f32], in_features: usize) -> bool {
        let mut rows = match check_rows(values.len(), in_features) {
            Ok(()) => values.chunks_exact(in_features),
            Err(_) => return false,
        };
        rows.all(|row| {
            row.chunks(self.block_size())
                .all(|block| self.holds_block(block))
        })
    }

    fn holds_block(&self, values: &[f32]) -> bool {
        let free_scale = match self {
            Self::Mxint(mxint) => return mxint.keeps_block(values),
            Self::Int(int) if int.has_zero_points() => FreeScale {
                dtype: int.scale_dtype(),
                most: u8::MAX >> (8 - int.element_bits()),
                fits: |found, most| found.largest - found.least <= most,
            },
            Self::Int(int) => FreeScale {
                dtype: int.scale_dtype(),
                most: u8::MAX >> (8 - int.element_bits()),
                fits: |found, most| 2.0 * found.largest <= most && -2.0 * found.least <= most + 1.0,
            },
            // Its scale may be negative.
            Self::Q4_0(_) => FreeScale {
                dtype: FloatDtype::F16,
                most: 15,
                fits: |found, _| {
                    let (down, up) = (-found.least, found.largest);
                    down.max(up) <= 8.0 && down.min(up) <= 7.0
                },
            },
        };
        free_scale.explains(values)
    }
}

impl FreeScale {
    /// Whether some scale has all values among its levels.
    fn explains(&self, values: &[f32]) -> bool {
        let magnitudes = values.iter().map(|x| x.abs()).filter(|&x| x != 0.0);
        let smallest = magnitudes.fold(f32::INFINITY, f32::min);
        if smallest == f32::INFINITY {
            // Zeros, of which NaN is none.
            return values.iter().all(|x| x.abs() == 0.0);
        }
        let mut scales = (1..=self.most).flat_map(|c| self.near(smallest / f32::from(c)));
        scales.any(|scale| self.is_explained_by(values, scale))
    }

    /// The scales that a quotient may stand for: itself and, where rounding may have moved it, its
    /// neighbours.
    fn near(&self, quotient: f32) -> impl Iterator<Item = f32> {
        let rounded = self.dtype.round(quotient);
        // The products of shorter scales are exact, and so are the quotients.
        let neighbours = match self.dtype {
            FloatDtype::F32 => 2,
            FloatDtype::F16 | FloatDtype::Bf16 => 0,
        };
        let steps = -neighbours..=neighbours;
        steps.map(move |ulps: i32| f32::from_bits(rounded.to_bits().saturating_add_signed(ulps)))
    }

    #[expect(clippy::float_cmp, reason = "a value is a level or it is none")]
    fn is_explained_by(&self, values: &[f32], scale: f32) -> bool {
        let mut found = Integers {
            least: 0.0,
            largest: 0.0,
        };
        let most = f32::from(self.most);
        let are_levels = scale > 0.0
            && values.iter().all(|&x| {
                let integer = libm::rintf(x / scale);
                found.least = found.least.min(integer);
                found.largest = found.largest.max(integer);
                integer * scale == x
            });
        are_levels && (self.fits)(&found, most)
    }
}
