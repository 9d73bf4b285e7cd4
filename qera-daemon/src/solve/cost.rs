//! What solving one layer costs, for the plan.

use crate::calibrate::WINDOW_ROWS;

use super::subspace::{DENSE_PANEL, is_dense};

/// The sizes that the cost depends on.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    /// in_features.
    pub m: usize,
    /// out_features.
    pub n: usize,
    /// Rank.
    pub rank: usize,
    /// Whether products with the full R are taken (QERA-exact).
    pub full: bool,
    /// Candidates scored in each fold.
    pub candidates: usize,
}

impl Quantity {
    /// Working memory: R in f32 (one more where a fold leaves rows out), E and W~, the window's output errors,
    /// f64 panels of R and E, the Krylov basis with its image and the operator's skinny products (or G and
    /// its decomposition where it is formed), A and B as they are measured and rounded.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        let Self { m, n, rank, .. } = self;
        let full = if self.full { 8 * m * m } else { 0 };
        let errors = 8 * m * n;
        let window = 4 * WINDOW_ROWS * n;
        let panels = 8 * m * (128 + 512);
        let spectral = if is_dense(n, rank) {
            8 * n * (7 * n + DENSE_PANEL) + 32 * m * DENSE_PANEL
        } else {
            let basis = 5 * (rank + 8);
            16 * n * basis + 56 * basis * basis + 24 * (m + n) * (rank + 8)
        };
        let factors = 48 * rank * (m + n);
        (full + errors + window + panels + spectral + factors) as u64
    }

    /// Operations, about: two traces, the window's output errors and the leaving-out in each fold, two Krylov
    /// cycles of the published solve, and for each candidate one warm cycle in each of four folds.
    #[must_use]
    pub fn flops(self) -> f64 {
        let (m, n) = (self.m as f64, self.n as f64);
        let rows = WINDOW_ROWS as f64;
        let full = if self.full { m * m } else { 0.0 };
        let apply = (self.rank + 8) as f64 * (4.0 * m * n + 2.0 * full);
        let traces = 2.0 * m * m * n;
        let folds = rows * (2.0 * m * n + full);
        traces + folds + 10.0 * apply + 12.0 * self.candidates as f64 * apply
    }
}
