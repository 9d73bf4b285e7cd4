//! The fixed pseudo-random columns that a block Krylov iteration starts from.
//!
//! A start block must not be orthogonal to an eigenvector that is wanted; random columns are so
//! with probability zero. The sequence has a fixed seed, and is mapped to [-1, 1): the same on
//! every machine.

use crate::pseudo_random::SplitMix64;

/// The fractional digits of pi: a constant with nothing up its sleeve.
const SEED: u64 = 0x243F_6A88_85A3_08D3;

#[derive(Clone, Copy, Debug)]
pub(super) struct StartColumns(SplitMix64);

impl StartColumns {
    pub(super) const fn new() -> Self {
        Self(SplitMix64::new(SEED))
    }

    /// Overwrites a column with the next values.
    pub(super) fn fill(&mut self, column: &mut [f64]) {
        for value in column {
            *value = self.0.next_symmetric();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first values of the seed, computed apart from this crate with exact integers.
    #[test]
    fn the_sequence_is_fixed() {
        let mut column = [0.0; 3];
        StartColumns::new().fill(&mut column);
        let mut again = [0.0; 3];
        StartColumns::new().fill(&mut again);
        assert_eq!(column.map(f64::to_bits), again.map(f64::to_bits));
        assert_eq!(
            column.map(f64::to_bits),
            [
                0xBFE4_D3C2_582D_5058,
                0x3FC4_1703_4723_1488,
                0x3FE7_5556_5418_277E
            ]
        );
    }
}
