//! The numbers that a block of a grid may take.

/// 2^23: from here to 2^24 neighbouring f32 numbers are 1 apart.
const SPACING_ONE: f32 = 8_388_608.0;

/// Evenly spaced levels: `step` times the integers from `lowest` to `highest`.
///
/// Every grid of this crate gives each of its blocks such levels, so that rounding need not know
/// formats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// The distance between two neighbouring levels, finite and not 0. A negative one reverses
    /// their order.
    pub step: f32,
    /// The smallest integer.
    pub lowest: f32,
    /// The largest.
    pub highest: f32,
}

impl Levels {
    /// Returns the integer of the level that is nearest to `x`; halves go to even.
    ///
    /// ```
    /// use qera_core::quantize::Levels;
    /// let levels = Levels { step: 0.5, lowest: -4.0, highest: 3.0 };
    /// assert_eq!([0.7, 9.0, -1.25].map(|x| levels.integer(x)), [1.0, 3.0, -2.0]);
    /// ```
    #[must_use]
    #[inline(always)]
    pub const fn integer(&self, x: f32) -> f32 {
        let scaled = x / self.step;
        // Compared first, so that neither infinity nor what lies beyond 2^23 reaches the addition;
        // a NaN (0 / 0 cannot come of a step that is not 0) becomes `highest`.
        if scaled >= self.highest {
            self.highest
        } else if scaled > self.lowest {
            let towards = if scaled < 0.0 {
                -SPACING_ONE
            } else {
                SPACING_ONE
            };
            scaled + towards - towards
        } else if scaled <= self.lowest {
            self.lowest
        } else {
            self.highest
        }
    }

    /// Returns the level that is nearest to `x`.
    #[must_use]
    #[inline(always)]
    pub const fn nearest(&self, x: f32) -> f32 {
        self.integer(x) * self.step
    }
}

/// The levels that may be chosen for a block, those of nearest rounding first.
///
/// ```
/// use qera_core::quantize::{Candidates, Grid, Levels, Mxint};
/// let candidates: Candidates = Grid::Mxint(Mxint::new(4, 32)?).candidates(&[0.3, -1.7]);
/// let choices: &[Levels] = candidates.as_slice();
/// assert!(choices.len() <= Candidates::MOST && choices[0] == candidates.first());
/// # Ok::<(), qera_core::quantize::GridError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidates {
    levels: [Levels; Self::MOST],
    count: usize,
}

impl Candidates {
    /// The most choices that any grid offers.
    pub const MOST: usize = 4;

    /// Offers the first `count` of these levels, at least one.
    pub(crate) const fn new(levels: [Levels; Self::MOST], count: usize) -> Self {
        Self { levels, count }
    }

    /// Returns all choices.
    #[must_use]
    pub fn as_slice(&self) -> &[Levels] {
        &self.levels[..self.count]
    }

    /// Returns the levels of nearest rounding.
    #[must_use]
    pub const fn first(&self) -> Levels {
        self.levels[0]
    }
}
