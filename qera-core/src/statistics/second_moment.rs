//! The second moment E\[x_i^2\] of each feature, the diagonal of R: all that QERA-approx needs.
//!
//! D_i += (w / N)(x_i^2 - D_i) for each row of weight w, N being the weight so far with it. The
//! product is rounded to f32, as those of the [autocorrelation](super::Autocorrelation) are, so
//! that D is R's diagonal; the fold is in f64.
//!
//! Cost: 4 flops a value. Error: relative 2^-24 from the product, then the bound of [the
//! module](super). Source: QERA (ICLR 2025), theorem 2 and algorithm 1: S = diag(sqrt(E\[x_i^2\])).
//! The folds are Welford's (Technometrics 4, 1962).

use super::channels::ChannelValues;
use super::error::StatisticError;
use crate::rows::Rows;
use core::fmt;
use heapless::Vec;

/// How many dead channels a report names at most.
const NAMED: usize = 8;

/// Running E\[x_i^2\] of each feature.
#[derive(Debug)]
pub struct SecondMoment<'a>(ChannelValues<'a>);

impl<'a> SecondMoment<'a> {
    /// Starts from nothing: zeroes `lent`, one number for each feature.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `lent` is empty.
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::SecondMoment};
    /// let mut lent = [0.0; 2];
    /// let mut second_moment = SecondMoment::new(&mut lent)?;
    /// second_moment.update(&Rows::new(&[1.0, 2.0, 3.0, -4.0], 2)?)?;
    /// assert_eq!(second_moment.values(), [5.0, 10.0]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn new(lent: &'a mut [f64]) -> Result<Self, StatisticError> {
        ChannelValues::new(lent).map(Self)
    }

    /// Continues from saved values of total weight `weight`.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `lent` is empty, [`StatisticError::Value`] for a negative or
    /// non-finite saved value, [`StatisticError::Weight`].
    pub fn resume(lent: &'a mut [f64], weight: f64) -> Result<Self, StatisticError> {
        ChannelValues::resume(lent, weight).map(Self)
    }

    /// Takes rows in.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when the rows are of another width.
    pub fn update(&mut self, rows: &Rows<'_>) -> Result<(), StatisticError> {
        self.0.take_rows(rows, |x| x * x)
    }

    /// Takes in what another state has seen, as if its rows had come here.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when it is of another width.
    pub fn merge(&mut self, other: &SecondMoment<'_>) -> Result<(), StatisticError> {
        self.0.take_means(&other.0)
    }

    /// Returns the total weight of the rows seen.
    #[must_use]
    pub const fn weight(&self) -> f64 {
        self.0.weight()
    }

    /// Returns E\[x_i^2\] for each feature; zeros before the first row.
    #[must_use]
    pub const fn values(&self) -> &[f64] {
        self.0.values()
    }

    /// Lists the channels that were never different from zero, for a warning of bounded length.
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::{DeadChannels, SecondMoment}};
    /// let mut lent = [0.0; 3];
    /// let mut second_moment = SecondMoment::new(&mut lent)?;
    /// second_moment.update(&Rows::new(&[0.0, 2.0, 0.0], 3)?)?;
    /// let dead: DeadChannels = second_moment.dead_channels();
    /// assert_eq!(dead.to_string(), "2 of 3 channels are always zero: 0, 2");
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[must_use]
    pub fn dead_channels(&self) -> DeadChannels {
        let dead = || {
            self.values()
                .iter()
                .enumerate()
                .filter(|(_, value)| **value <= 0.0)
                .map(|(channel, _)| channel)
        };
        DeadChannels {
            count: dead().count(),
            in_features: self.values().len(),
            first: dead().take(NAMED).collect(),
        }
    }
}

/// The channels of an input that were always zero: how many, and the first few.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadChannels {
    /// How many channels were always zero.
    pub count: usize,
    /// How many channels the input has.
    pub in_features: usize,
    /// The first channels that were always zero, in order.
    pub first: Vec<usize, NAMED>,
}

impl fmt::Display for DeadChannels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} channels are always zero",
            self.count, self.in_features
        )?;
        for (place, channel) in self.first.iter().enumerate() {
            write!(f, "{} {channel}", if place == 0 { ":" } else { "," })?;
        }
        if self.count > self.first.len() {
            f.write_str(", ...")
        } else {
            Ok(())
        }
    }
}
