//! What rounding one layer under R costs, for the plan: what exists at one time, and the work.

use qera_core::quantize::{Grid, Levels};

use crate::host::kernels::Kernel;
use crate::host::kernels::panel::panel_lanes;
use crate::settings::rounding::{Rounding, RoundingSettings, RoundingShrinkage};
use crate::solve::cost::Quantity;
use crate::solve::rounder::layer::Rounds;

/// How many shrinkages `--rounding-shrinkage auto` compares.
const COMPARED: f64 = 3.0;
/// Matrices of W's size that exist during a refit: W, two W~ of which the better one stays, E, and
/// E by rows.
const REFIT_MATRICES: usize = 5;
/// Matrices of W's size that exist while W~ is rounded: W and two W~.
const ROUNDED_MATRICES: usize = 3;

/// The sizes that the cost depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoundingQuantity {
    /// The sizes that a solve of the layer depends on.
    pub(crate) solve: Quantity,
    /// The grid that W is rounded to.
    pub(crate) grid: Grid,
    /// The kernel that multiplies.
    pub(crate) kernel: Kernel,
}

impl RoundingQuantity {
    /// The bytes that a solving thread holds while it rounds.
    #[must_use]
    pub(crate) fn bytes(self) -> u64 {
        let Quantity { m, n, .. } = self.solve;
        // R of the rows that W~ may be made from, and its form for products.
        let kept = size_of::<f64>() * (m * (m + 1) / 2) + size_of::<f32>() * m * m;
        // H exists in f64 until its factor is there in f32 (H of a descent takes less).
        let metric = (size_of::<f64>() + size_of::<f32>()) * m * m;
        let matrix = size_of::<f32>() * m * n;
        let rounding = metric + ROUNDED_MATRICES * matrix;
        let refit = REFIT_MATRICES * matrix + self.solve.refit_bytes();
        let levels = 2 * size_of::<Levels>() * n * m.div_ceil(self.grid.block_size());
        (kept + levels + rounding.max(refit)) as u64 + self.panel_bytes()
    }

    /// The bytes that each participating core holds: the errors of a panel's columns.
    #[must_use]
    pub(crate) const fn panel_bytes(self) -> u64 {
        (panel_lanes(self.kernel) * self.solve.m * size_of::<f32>()) as u64
    }

    /// The bytes of a layer's W~ when packed; it is held until W~ of the whole site is made.
    #[must_use]
    pub(crate) fn packed_bytes(self) -> u64 {
        let Quantity { m, n, .. } = self.solve;
        let blocks = n * m.div_ceil(self.grid.block_size());
        (self.grid.codes_len(n, m) + 2 * size_of::<f32>() * blocks) as u64
    }

    /// Operations, about: each round of feedback factors its metric and goes through it once for
    /// every column, each round of descent multiplies by it once, and a refit follows each round.
    #[must_use]
    pub(crate) fn flops(self, settings: &RoundingSettings) -> f64 {
        let (m, n) = (self.solve.m as f64, self.solve.n as f64);
        let refit = self.solve.refit_flops();
        let feedback = m.powi(3) / 3.0 + m * m * n;
        let descent = 2.0 * m * m * n;
        let made = match settings.rounding {
            Rounding::Nearest => return 0.0,
            Rounding::Feedback => feedback + refit,
            Rounding::Projected => {
                let [feedbacks, descents] =
                    [Rounds::FULL.feedbacks, Rounds::FULL.descents].map(|rounds| rounds as f64);
                feedbacks * feedback + descents * descent + (feedbacks + descents) * refit
            }
        };
        match settings.shrinkage {
            RoundingShrinkage::Auto => made + COMPARED * (feedback + descent + 2.0 * refit),
            RoundingShrinkage::Rule | RoundingShrinkage::Fixed(_) => made,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::second_moment::SecondMomentKind;
    use crate::settings::Settings;
    use qera_core::quantize::Mxint;

    fn quantity() -> RoundingQuantity {
        RoundingQuantity {
            solve: Quantity {
                sketch: None,
                m: 64,
                n: 32,
                rank: 2,
                full: true,
                second_moment: SecondMomentKind::Packed,
                widened_bytes: 0,
                fold_rows: 0,
                candidates: 1,
                in_blocks: false,
                live: false,
            },
            grid: Grid::Mxint(Mxint::new(3, 32).unwrap()),
            kernel: Kernel::best(),
        }
    }

    fn flops(text: &str) -> f64 {
        let settings = Settings::from_toml(text).unwrap().rounding;
        quantity().flops(&settings)
    }

    /// Work grows with what is done: each kind of rounding does what the one before does, and more.
    #[test]
    fn more_rounds_are_more_work() {
        let works = [
            "",
            "rounding = \"feedback\"",
            "rounding = \"projected\"",
            "rounding = \"projected\"\nrounding-shrinkage = \"auto\"",
        ];
        let works = works.map(flops);
        assert!(works[0].abs() < 1.0);
        assert!(works.is_sorted_by(|a, b| a < b), "{works:?}");
        let (m, n) = (64.0_f64, 32.0_f64);
        let feedback = m.powi(3) / 3.0 + m * m * n;
        let refit = quantity().solve.refit_flops();
        assert!((works[1] - feedback - refit).abs() < 1e-6);
    }

    #[test]
    fn what_is_held_is_counted() {
        let of = quantity();
        // 2 blocks of each of 32 rows; 3 bits of 64 inputs are 24 bytes.
        assert_eq!(of.packed_bytes(), 32 * 24 + 8 * 64);
        let kept = 8 * 64 * 65 / 2 + 4 * 64 * 64;
        assert!(of.bytes() > kept + 12 * 64 * 64 + 12 * 64 * 32 + of.panel_bytes());
    }
}
