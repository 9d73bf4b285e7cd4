//! Matrices with a spectrum of one's choice: graded, clustered, rank-deficient.

use crate::matrix::Matrix;
use qera_core::pseudo_random::SplitMix64;

/// Entries uniform in (-1, 1) from a seed: the same matrix for the same seed, everywhere.
#[must_use]
pub fn uniform(rows: usize, columns: usize, seed: u64) -> Matrix {
    // Small seeds, each of which shall begin elsewhere in the sequence of counters.
    let counter = seed.wrapping_mul(SplitMix64::GAMMA) ^ 0x1234_5678_9ABC_DEF0;
    let mut sequence = SplitMix64::new(counter);
    Matrix::from_fn(rows, columns, |_, _| sequence.next_symmetric())
}

/// Orthonormal columns (`rows >= columns`).
#[must_use]
pub fn orthonormal(rows: usize, columns: usize, seed: u64) -> Matrix {
    let qr = uniform(rows, columns, seed).to_faer().qr();
    Matrix::from_faer(qr.compute_thin_Q().as_ref())
}

/// `Q diag(values) Q^T` with a random `Q`, symmetric to the last bit.
#[must_use]
pub fn symmetric(values: &[f64], seed: u64) -> Matrix {
    let q = orthonormal(values.len(), values.len(), seed);
    let scaled = &q * &Matrix::diagonal(values);
    (&scaled * &q.transpose()).symmetrised()
}

/// A spectrum of `n` values by name; every property of a decomposition is tested on each.
#[must_use]
pub fn spectrum(kind: Spectrum, n: usize) -> Vec<f64> {
    let last = n.max(2) - 1;
    (0..n)
        .map(|i| match kind {
            Spectrum::Flat => 1.0 + (n - i) as f64 / n as f64,
            Spectrum::Graded => 10.0_f64.powf(-12.0 * i as f64 / last as f64),
            Spectrum::PowerLaw => (1.0 + i as f64).powf(-1.2),
            Spectrum::Clustered => {
                if i < n / 2 {
                    1.0
                } else {
                    1e-3 * (1.0 + 1e-13 * i as f64)
                }
            }
            Spectrum::RankDeficient => {
                if i < n.div_ceil(3) {
                    1.0 / (1.0 + i as f64)
                } else {
                    0.0
                }
            }
            Spectrum::Indefinite => {
                let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
                sign / (1.0 + i as f64)
            }
        })
        .collect()
}

/// Shapes of a spectrum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spectrum {
    /// Between 1 and 2.
    Flat,
    /// Twelve decades.
    Graded,
    /// `i^-1.2`, as autocorrelations have.
    PowerLaw,
    /// Half of them 1, half of them 1e-3 to the last digits.
    Clustered,
    /// Two thirds of them zero.
    RankDeficient,
    /// Both signs.
    Indefinite,
}

impl Spectrum {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Flat,
        Self::Graded,
        Self::PowerLaw,
        Self::Clustered,
        Self::RankDeficient,
        Self::Indefinite,
    ];

    /// Those without a negative value.
    pub const SEMI_DEFINITE: [Self; 5] = [
        Self::Flat,
        Self::Graded,
        Self::PowerLaw,
        Self::Clustered,
        Self::RankDeficient,
    ];
}

/// The packed upper triangle of a symmetric matrix.
#[must_use]
pub fn packed(a: &Matrix) -> Vec<f64> {
    let m = a.nrows();
    (0..m)
        .flat_map(|i| (i..m).map(move |j| a[(i, j)]))
        .collect()
}
