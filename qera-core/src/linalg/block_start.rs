//! The fixed pseudo-random columns that a block Krylov iteration starts from.
//!
//! A start block must not be orthogonal to an eigenvector that is wanted; random columns are so with probability zero. The
//! sequence is SplitMix64 (Steele, Lea and Flood 2014) from a fixed seed, mapped to (-1, 1): the same on every machine.

#[derive(Clone, Copy, Debug)]
pub(super) struct Generator(u64);

impl Default for Generator {
    fn default() -> Self {
        // The fractional digits of pi: a constant with nothing up its sleeve.
        Self(0x243F_6A88_85A3_08D3)
    }
}

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform values in (-1, 1), of 53 random bits each.
    pub(super) fn fill(&mut self, column: &mut [f64]) {
        const STEP: f64 = 1.0 / (1_u64 << 52) as f64;
        for value in column {
            *value = (self.next() >> 11) as f64 * STEP - 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_fixed_and_centred() {
        let mut column = [0.0; 1000];
        Generator::default().fill(&mut column);
        let mut again = [0.0; 1000];
        Generator::default().fill(&mut again);
        assert!(
            column
                .iter()
                .zip(&again)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
        assert!(column.iter().all(|x| (-1.0..1.0).contains(x)));
        let mean: f64 = column.iter().sum::<f64>() / 1000.0;
        // Standard error of the mean of 1000 uniform values: 0.018.
        assert!(mean.abs() < 0.06, "{mean}");
    }
}
