//! Mean and variance of each feature, in one pass.
//!
//! The textbook E\[x^2\] - E\[x\]^2 loses all digits when the mean is large against the spread.
//! Welford's recurrence keeps the mean mu and the sum of squared deviations M2 instead. For a row
//! of weight w, N being the weight so far with it:
//!
//!   d = x - mu,  mu += (w / N) d,  M2 += w d (x - mu),
//!
//! with the new mu in the last factor: w d (x - mu) = w (1 - w / N) d^2 >= 0, so M2 never falls.
//! Two states of weights N_a and N_b merge by Chan, Golub and LeVeque: d = mu_b - mu_a, mu_a +=
//! (N_b / N) d, M2_a += M2_b + d^2 N_a N_b / N. That is the recurrence above for a whole batch.
//!
//! Cost: 6 flops a value. Error: relative n 2^-53 kappa in the variance, kappa = sqrt(1 + mu^2 /
//! variance), where the textbook formula has n 2^-53 kappa^2. Source: Welford, Technometrics 4
//! (1962) 419; Chan, Golub and LeVeque, The American Statistician 37 (1983) 242, eq. 2.1 and
//! table 1.

use super::error::{StatisticError, check_in_features, check_length, check_values, check_weight};
use super::fold::{CHANNELS, steps};
use crate::rows::Rows;

/// Running mean and sum of squared deviations of each feature.
#[derive(Debug)]
pub struct Moments<'a> {
    mean: &'a mut [f64],
    m2: &'a mut [f64],
    weight: f64,
}

impl<'a> Moments<'a> {
    /// Starts from nothing: zeroes `mean` and `m2`, one number for each feature in both.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `mean` is empty or `m2` is of another length.
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::Moments};
    /// let (mut mean, mut m2, mut variance) = ([0.0; 1], [0.0; 1], [0.0; 1]);
    /// let mut moments = Moments::new(&mut mean, &mut m2)?;
    /// moments.update(&Rows::new(&[1.0e9, 1.0e9 + 128.0, 1.0e9 + 256.0], 1)?)?;
    /// assert!(moments.sample_variance(&mut variance)?);
    /// assert_eq!((moments.mean(), variance), (&[1.0e9 + 128.0][..], [16384.0]));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn new(mean: &'a mut [f64], m2: &'a mut [f64]) -> Result<Self, StatisticError> {
        mean.fill(0.0);
        m2.fill(0.0);
        Self::resume(mean, m2, 0.0)
    }

    /// Continues from saved values of total weight `weight`.
    ///
    /// # Errors
    /// [`StatisticError::Length`] as for [`new`](Self::new), [`StatisticError::Value`] for a saved
    /// mean that is not finite or a saved M2 that is negative or not finite,
    /// [`StatisticError::Weight`].
    pub fn resume(
        mean: &'a mut [f64],
        m2: &'a mut [f64],
        weight: f64,
    ) -> Result<Self, StatisticError> {
        check_length(mean.len().max(1), mean.len())?;
        check_length(mean.len(), m2.len())?;
        check_values(mean, f64::MIN)?;
        check_values(m2, 0.0)?;
        check_weight(weight)?;
        Ok(Self { mean, m2, weight })
    }

    /// Takes rows in.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when the rows are of another width.
    pub fn update(&mut self, rows: &Rows<'_>) -> Result<(), StatisticError> {
        check_in_features(self.mean.len(), rows.in_features())?;
        let mut total = self.weight;
        let groups = self.mean.chunks_mut(CHANNELS);
        for (group, (mean, m2)) in groups.zip(self.m2.chunks_mut(CHANNELS)).enumerate() {
            total = self.weight;
            for step in steps(rows, &mut total) {
                let values = &step.values[group * CHANNELS..];
                for ((mean, m2), &x) in mean.iter_mut().zip(m2.iter_mut()).zip(values) {
                    let deviation = f64::from(x) - *mean;
                    *mean += step.share * deviation;
                    *m2 += step.weight * deviation * (f64::from(x) - *mean);
                }
            }
        }
        self.weight = total;
        Ok(())
    }

    /// Takes in what another state has seen, as if its rows had come here (Chan's formula).
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when it is of another width.
    pub fn merge(&mut self, other: &Moments<'_>) -> Result<(), StatisticError> {
        check_in_features(self.mean.len(), other.mean.len())?;
        let total = self.weight + other.weight;
        if other.weight > 0.0 {
            let share = other.weight / total;
            let between = self.weight * share;
            let others = other.mean.iter().zip(other.m2.iter());
            for ((mean, m2), (&other_mean, &other_m2)) in
                self.mean.iter_mut().zip(self.m2.iter_mut()).zip(others)
            {
                let deviation = other_mean - *mean;
                *mean += share * deviation;
                *m2 += other_m2 + deviation * deviation * between;
            }
            self.weight = total;
        }
        Ok(())
    }

    /// Returns the total weight of the rows seen.
    #[must_use]
    pub const fn weight(&self) -> f64 {
        self.weight
    }

    /// Returns the mean of each feature; zeros before the first row.
    #[must_use]
    pub const fn mean(&self) -> &[f64] {
        self.mean
    }

    /// Returns the weighted sum of squared deviations of each feature from its mean: with the mean
    /// and the weight, what a snapshot keeps.
    #[must_use]
    pub const fn m2(&self) -> &[f64] {
        self.m2
    }

    /// Writes M2 / N, the variance of the rows themselves. Says `false`, and writes zeros, when
    /// nothing was seen.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `out` does not have in_features numbers.
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::Moments};
    /// let (mut mean, mut m2, mut variance) = ([0.0; 1], [0.0; 1], [0.0; 1]);
    /// let mut moments = Moments::new(&mut mean, &mut m2)?;
    /// assert!(!moments.population_variance(&mut variance)?); // nothing was seen
    /// moments.update(&Rows::new(&[1.0, 3.0], 1)?)?;
    /// assert!(moments.population_variance(&mut variance)?);
    /// assert_eq!(variance, [1.0]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn population_variance(&self, out: &mut [f64]) -> Result<bool, StatisticError> {
        self.variance(out, self.weight)
    }

    /// Writes M2 / (N - 1), which estimates the variance of what the rows were drawn from, the
    /// weights being counts of repetitions. Says `false`, and writes zeros, when N is at most 1.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `out` does not have in_features numbers.
    pub fn sample_variance(&self, out: &mut [f64]) -> Result<bool, StatisticError> {
        self.variance(out, self.weight - 1.0)
    }

    fn variance(&self, out: &mut [f64], divisor: f64) -> Result<bool, StatisticError> {
        check_length(self.m2.len(), out.len())?;
        for (variance, &m2) in out.iter_mut().zip(self.m2.iter()) {
            *variance = if divisor > 0.0 { m2 / divisor } else { 0.0 };
        }
        Ok(divisor > 0.0)
    }
}
