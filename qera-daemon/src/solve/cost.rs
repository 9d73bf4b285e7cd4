//! What solving one layer costs, for the plan.

use crate::calibrate::WINDOW_ROWS;

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
    /// Working memory: R in f32 (one more where a fold leaves rows out), E and W~, the window's output errors, f64
    /// panels of R and E, the Krylov basis and its image (or G itself for small n).
    #[must_use]
    pub const fn bytes(self) -> u64 {
        let Self { m, n, rank, .. } = self;
        let full = if self.full { 8 * m * m } else { 0 };
        let errors = 8 * m * n;
        let window = 4 * WINDOW_ROWS * n;
        let panels = 8 * m * (128 + 512);
        let basis = 16 * n * 5 * (rank + 8);
        let dense = if n <= 512 { 8 * n * (4 * n + m) } else { 0 };
        (full + errors + window + panels + basis + dense) as u64
    }

    /// Operations, about: two traces (m^2 n each), two Krylov cycles of the published solve, and for each
    /// candidate one warm cycle in each of four folds.
    #[must_use]
    pub fn flops(self) -> f64 {
        let (m, n) = (self.m as f64, self.n as f64);
        let apply =
            (self.rank + 8) as f64 * (4.0 * m * n + if self.full { 2.0 * m * m } else { 0.0 });
        let traces = 2.0 * m * m * n;
        let scoring = 2.0 * WINDOW_ROWS as f64 * m * n;
        traces + scoring + 10.0 * apply + 12.0 * self.candidates as f64 * apply
    }
}
