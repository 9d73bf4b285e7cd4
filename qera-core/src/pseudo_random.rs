//! Pseudo-random numbers that are the same in every run and on every machine: SplitMix64.
//!
//! # Definition
//! The state is a counter that grows by gamma = 0x9E3779B97F4A7C15, the odd number nearest to 2^64
//! divided by the golden ratio, so it takes every value once in 2^64 steps. A number is the state
//! after a step, mixed:
//!
//!   z = (z ^ z >> 30) 0xBF58476D1CE4E5B9,  z = (z ^ z >> 27) 0x94D049BB133111EB,  z ^ z >> 31   (modulo 2^64),
//!
//! a bijection each of whose output bits depends on all input bits (David Stafford's variant 13 of
//! MurmurHash3's finalizer). Any number can be had without those before it, since the counter is
//! known ([`SplitMix64::nth`]).
//!
//! For starting blocks, samples and test data; not for secrets: one output gives all others.
//!
//! Cost: 9 integer operations a number. Source: Steele, Lea and Flood, *Fast splittable
//! pseudorandom number generators*, OOPSLA 2014 (ACM SIGPLAN Notices 49, 10); shifts and factors as
//! in Vigna's `splitmix64.c`.

/// A sequence of pseudo-random numbers, given by its seed.
#[derive(Clone, Copy, Debug)]
pub struct SplitMix64 {
    counter: u64,
}

impl SplitMix64 {
    /// What the counter grows by: the odd number nearest to 2^64 divided by the golden ratio.
    pub const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

    /// Starts the sequence of a seed. Seeds that differ by a multiple of [`Self::GAMMA`] give the
    /// same sequence, shifted: take small or unrelated ones.
    ///
    /// ```
    /// use qera_core::pseudo_random::SplitMix64;
    /// let mut sequence = SplitMix64::new(1_234_567);
    /// assert_eq!(sequence.next_bits(), 6_457_827_717_110_365_317);
    /// assert_eq!(sequence.next_bits(), 3_203_168_211_198_807_973);
    /// ```
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { counter: seed }
    }

    /// Returns the next 64 random bits.
    pub const fn next_bits(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(Self::GAMMA);
        mix(self.counter)
    }

    /// Returns the next number of the 2^53 evenly spaced ones in [-1, 1).
    ///
    /// ```
    /// use qera_core::pseudo_random::SplitMix64;
    /// let (mut bits, mut numbers) = (SplitMix64::new(5), SplitMix64::new(5));
    /// let spacing = 1.0 / (1_u64 << 52) as f64;
    /// assert_eq!(numbers.next_symmetric(), (bits.next_bits() >> 11) as f64 * spacing - 1.0);
    /// ```
    pub const fn next_symmetric(&mut self) -> f64 {
        const SPACING: f64 = 1.0 / (1_u64 << 52) as f64;
        (self.next_bits() >> 11) as f64 * SPACING - 1.0
    }

    /// Returns the number at `index`, counted from 0, of the sequence of seed 0.
    ///
    /// ```
    /// use qera_core::pseudo_random::SplitMix64;
    /// let mut sequence = SplitMix64::new(0);
    /// assert_eq!([0, 1, 2].map(SplitMix64::nth), [(); 3].map(|()| sequence.next_bits()));
    /// let mut from_the_second = SplitMix64::new(SplitMix64::GAMMA);
    /// assert_eq!(SplitMix64::nth(1), from_the_second.next_bits());
    /// ```
    #[must_use]
    pub const fn nth(index: u64) -> u64 {
        mix(index.wrapping_add(1).wrapping_mul(Self::GAMMA))
    }
}

const fn mix(counter: u64) -> u64 {
    let z = (counter ^ (counter >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What other implementations print: the first five for seed 1234567, and the first for seed 0.
    #[test]
    fn the_sequences_are_the_published_ones() {
        let mut sequence = SplitMix64::new(1_234_567);
        for expected in [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ] {
            assert_eq!(sequence.next_bits(), expected);
        }
        assert_eq!(SplitMix64::nth(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(SplitMix64::nth(u64::MAX), mix(0));
    }

    #[test]
    fn symmetric_numbers_reach_from_minus_one_to_below_one_and_are_centred() {
        let mut sequence = SplitMix64::new(0x243F_6A88_85A3_08D3);
        let numbers = [(); 1000].map(|()| sequence.next_symmetric());
        assert!(numbers.iter().all(|x| (-1.0..1.0).contains(x)));
        let mean: f64 = numbers.iter().sum::<f64>() / 1000.0;
        // Standard error of the mean of 1000 uniform values: 0.018.
        assert!(mean.abs() < 0.06, "{mean}");
        let square: f64 = numbers.iter().map(|x| x * x).sum::<f64>() / 1000.0;
        // That of their square, whose mean is 1/3: 0.0094.
        assert!((square - 1.0 / 3.0).abs() < 0.03, "{square}");
    }
}
