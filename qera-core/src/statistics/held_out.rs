//! Held-out error: its mean over blocks, and an interval around it.
//!
//! Tokens of one text resemble each other, so the error of a correction on n tokens is known much
//! less well than n independent draws would say: an interval over tokens is several times too
//! narrow. What is close to independent are blocks (one sequence each, or a few hundred rows). So
//! each block contributes one number, its mean error e_b, and with B blocks of mean e and sample
//! variance s^2 the interval is
//!
//!   e +- t_{(1 + c) / 2, B - 1} s / sqrt(B),
//!
//! Student's t because s is estimated from the same few blocks. Mean and variance are Welford's
//! recurrence, states merge by Chan's formula (see `moments`).
//!
//! Cost: 5 flops a block. Error: as for [`Moments`](super::Moments). Source: Student, Biometrika 6
//! (1908) 1; batch means as in Law and Kelton, Simulation Modeling and Analysis, 9.5.3.

use super::student_t::student_t_quantile;

/// The mean and the variance of the means of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BlockMeans {
    count: u64,
    mean: f64,
    m2: f64,
}

/// A mean and how far it may be off, to either side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The mean of the block means.
    pub mean: f64,
    /// Half the width of the interval around it.
    pub half_width: f64,
}

impl BlockMeans {
    /// Starts from no block.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: 0,
            mean: 0.0,
            m2: 0.0,
        }
    }

    /// Continues from saved numbers: how many blocks, their mean, the sum of squared deviations
    /// from it. `None` for numbers that no blocks have.
    ///
    /// ```
    /// # use qera_core::statistics::BlockMeans;
    /// let mut blocks = BlockMeans::new();
    /// blocks.push(1.0);
    /// blocks.push(3.0);
    /// assert_eq!(BlockMeans::resume(blocks.count(), blocks.mean(), blocks.m2()), Some(blocks));
    /// assert_eq!(BlockMeans::resume(2, 1.0, -1.0), None);
    /// ```
    #[must_use]
    pub fn resume(count: u64, mean: f64, m2: f64) -> Option<Self> {
        // One block has no deviation, no block no mean either.
        let possible = mean.is_finite()
            && m2.is_finite()
            && m2 >= 0.0
            && (count > 1 || m2 <= 0.0)
            && (count > 0 || mean.abs() <= 0.0);
        possible.then_some(Self { count, mean, m2 })
    }

    /// Takes one block's mean in. Says `false`, and leaves the state as it was, when it is not
    /// finite.
    pub fn push(&mut self, block_mean: f64) -> bool {
        if block_mean.is_finite() {
            self.count += 1;
            let deviation = block_mean - self.mean;
            self.mean += deviation / self.count as f64;
            self.m2 += deviation * (block_mean - self.mean);
        }
        block_mean.is_finite()
    }

    /// Takes in the blocks of another state.
    pub fn merge(&mut self, other: &Self) {
        if other.count > 0 {
            let share = other.count as f64 / (self.count + other.count) as f64;
            let deviation = other.mean - self.mean;
            self.mean += share * deviation;
            self.m2 += other.m2 + deviation * deviation * share * self.count as f64;
            self.count += other.count;
        }
    }

    /// Returns how many blocks there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns the mean of the block means; 0 before the first.
    #[must_use]
    pub const fn mean(&self) -> f64 {
        self.mean
    }

    /// Returns the sum of squared deviations from the mean: with mean and count, what a snapshot
    /// keeps.
    #[must_use]
    pub const fn m2(&self) -> f64 {
        self.m2
    }

    /// Returns the sample variance of the block means, s^2; `None` below two blocks.
    #[must_use]
    pub fn variance(&self) -> Option<f64> {
        (self.count > 1).then(|| self.m2 / (self.count - 1) as f64)
    }

    /// Returns the two-sided interval that holds the true mean with probability `confidence`;
    /// `None` below two blocks or when `confidence` is not between 0 and 1.
    ///
    /// ```
    /// use qera_core::statistics::{BlockMeans, Interval};
    /// let mut blocks = BlockMeans::new();
    /// for block_mean in [4.0, 5.0, 6.0, 5.0] {
    ///     blocks.push(block_mean);
    /// }
    /// let Interval { mean, half_width } = blocks.interval(0.95).unwrap();
    /// assert_eq!(mean, 5.0);
    /// // t(0.975, 3) = 3.182446..., s^2 = 2 / 3, four blocks
    /// let expected = 3.182_446_305_284 * (2.0_f64 / 3.0 / 4.0).sqrt();
    /// assert!((half_width - expected).abs() < 1e-11);
    /// ```
    #[must_use]
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        if !(confidence > 0.0 && confidence < 1.0) {
            return None;
        }
        let error_of_mean = libm::sqrt(self.variance()? / self.count as f64);
        let quantile = student_t_quantile(0.5 + confidence / 2.0, (self.count - 1) as f64);
        Some(Interval {
            mean: self.mean,
            half_width: quantile * error_of_mean,
        })
    }
}
