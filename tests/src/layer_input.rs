//! Autocorrelations of layer inputs by name, and quantization errors: what a solve is tested on. R
//! is that of rows drawn from a population, so that the R of more rows differs from it as it does
//! in a stream.

use faer::Mat;

use crate::spectra::{orthonormal, uniform};

/// Kinds of layer input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Eigenvalues i^-1.2, channels of different size.
    Natural,
    /// Natural, three channels 50 times larger.
    Outliers,
    /// Natural, three channels 2500 times larger.
    Massive,
    /// Natural, half as many rows as channels.
    RankDeficient,
    /// Natural, every tenth channel always zero.
    DeadChannels,
    /// Eigenvalues over twelve decades, channels of equal size.
    Graded,
}

impl Input {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Natural,
        Self::Outliers,
        Self::Massive,
        Self::RankDeficient,
        Self::DeadChannels,
        Self::Graded,
    ];

    /// Rows from which R is estimated.
    #[must_use]
    pub const fn rows(self, m: usize) -> usize {
        match self {
            Self::RankDeficient => m / 2,
            _ => 2 * m,
        }
    }

    fn channel_size(self, channel: usize, m: usize) -> f64 {
        let natural = LARGEST.powf(((channel * 7 + 3) as f64 * 0.61).sin());
        let is_large = [m / 7, m / 2, m - 3].contains(&channel);
        match self {
            Self::Outliers if is_large => 50.0 * LARGEST,
            Self::Massive if is_large => 2500.0 * LARGEST,
            Self::DeadChannels if channel % 10 == 4 => 0.0,
            Self::Graded => 1.0,
            _ => natural,
        }
    }
}

/// The largest channel of the natural ones; the smallest is its inverse.
const LARGEST: f64 = 4.5;

/// Rows of one kind.
#[derive(Debug)]
pub struct Population {
    /// Rows are random times its transpose.
    mix: Mat<f64>,
}

impl Population {
    /// Of width m.
    #[must_use]
    pub fn new(input: Input, m: usize) -> Self {
        let q = orthonormal(m, m, 11);
        let last = (m.max(2) - 1) as f64;
        let eigenvalue = |i: usize| match input {
            Input::Graded => 10.0_f64.powf(-12.0 * i as f64 / last),
            _ => (1.0 + i as f64).powf(-1.2),
        };
        let mix = Mat::from_fn(m, m, |i, j| {
            input.channel_size(i, m) * q[(i, j)] * eigenvalue(j).sqrt()
        });
        Self { mix }
    }

    /// m x rows: each column is a row of the layer's input.
    #[must_use]
    pub fn rows(&self, rows: usize, seed: u64) -> Mat<f64> {
        // The sum of two uniform numbers: near enough to normal ones.
        let m = self.mix.ncols();
        let random = uniform(m, rows, seed).to_faer() + uniform(m, rows, seed + 1).to_faer();
        &self.mix * random
    }

    /// R of so many rows, symmetric to the last bit.
    #[must_use]
    pub fn autocorrelation(&self, rows: usize, seed: u64) -> Mat<f64> {
        let x = self.rows(rows, seed);
        let sums = &x * x.transpose();
        let share = 0.5 / rows as f64;
        Mat::from_fn(x.nrows(), x.nrows(), |i, j| {
            share * sums[(i, j)] + share * sums[(j, i)]
        })
    }
}
