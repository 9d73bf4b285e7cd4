//! Numbers that a seed gives.

use qera_core::pseudo_random::SplitMix64;

/// Draws.
#[derive(Debug)]
pub(crate) struct Draw(SplitMix64);

impl Draw {
    /// The sequence of a seed; that of the next one has nothing to do with it.
    pub(crate) fn new(seed: u64) -> Self {
        let mixed = SplitMix64::new(seed).next_bits();
        Self(SplitMix64::new(mixed))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_bits()
    }

    /// Draws one number of `0..end`; 0 where the range is empty.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        let drawn = usize::try_from(self.bits() >> 1).unwrap();
        drawn.checked_rem(end).unwrap_or(0)
    }

    /// Draws one of these.
    pub(crate) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// True once in `times`.
    pub(crate) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}
