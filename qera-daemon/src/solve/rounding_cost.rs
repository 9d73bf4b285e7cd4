//! What rounding one layer under R costs, for the plan: what exists at one time, and the work.
//!
//! A solving thread holds it all from the first round to the last; the refit of each round needs
//! its basis and skinny products beside it (`cost.rs`).

use crate::settings::rounding::{Rounding, RoundingSettings, RoundingShrinkage};

/// Rounds of feedback under the projected metric.
const FEEDBACK_ROUNDS: f64 = 2.0;
/// Rounds of descent after them.
const DESCENT_ROUNDS: f64 = 3.0;
/// Odds of the shrinkage that `--rounding-shrinkage auto` compares.
const COMPARED: f64 = 3.0;
/// Columns that a core rounds at one time, and panels of them: their errors and what they feed back.
const PANEL_COLUMNS: usize = 256;
const PANELS: usize = 2;

/// The sizes that the cost depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoundingQuantity {
    /// in_features.
    pub(crate) m: usize,
    /// out_features.
    pub(crate) n: usize,
}

impl RoundingQuantity {
    /// What a solving thread holds while it rounds, without what a refit needs beside E.
    #[must_use]
    pub(crate) const fn bytes(self) -> u64 {
        let Self { m, n } = self;
        let factor = size_of::<f64>() * m * m;
        // L by columns, or H for the descent.
        let metric = size_of::<f32>() * m * m;
        // R of the rows that W~ may know.
        let kept = size_of::<f64>() * (m * (m + 1) / 2);
        let prepared = size_of::<f32>() * m * m;
        // W, W~, E, and E by rows.
        let weights = 4 * size_of::<f32>() * m * n;
        (factor + metric + kept + prepared + weights) as u64 + self.panel_bytes()
    }

    /// What each core holds that takes part.
    #[must_use]
    pub(crate) const fn panel_bytes(self) -> u64 {
        (PANELS * PANEL_COLUMNS * self.m * size_of::<f32>()) as u64
    }

    /// Operations, about, where a refit takes so many: each round of feedback factors its metric and
    /// goes through it once for every column, each of descent multiplies by it once and then changes
    /// few codes.
    #[must_use]
    pub(crate) fn flops(self, settings: &RoundingSettings, refit: f64) -> f64 {
        let (m, n) = (self.m as f64, self.n as f64);
        let feedback = m.powi(3) / 3.0 + m * m * n;
        let descent = 2.0 * m * m * n;
        let made = match settings.rounding {
            Rounding::Nearest => return 0.0,
            Rounding::Feedback => feedback + refit,
            Rounding::Projected => {
                FEEDBACK_ROUNDS * feedback
                    + DESCENT_ROUNDS * descent
                    + (FEEDBACK_ROUNDS + DESCENT_ROUNDS) * refit
            }
        };
        match settings.shrinkage {
            RoundingShrinkage::Auto => made + COMPARED * (feedback + descent),
            RoundingShrinkage::Rule | RoundingShrinkage::Fixed(_) => made,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    fn flops(text: &str) -> f64 {
        let settings = Settings::from_toml(text).unwrap().rounding;
        RoundingQuantity { m: 3, n: 2 }.flops(&settings, 100.0)
    }

    #[test]
    fn every_round_is_counted() {
        for (text, expected) in [
            ("", 0.0),
            ("rounding = \"feedback\"", 127.0),
            ("rounding = \"projected\"", 662.0),
            (
                "rounding = \"projected\"\nrounding-shrinkage = \"auto\"",
                851.0,
            ),
            ("rounding = \"projected\"\nrounding-shrinkage = 0.1", 662.0),
        ] {
            assert!((flops(text) - expected).abs() < 1e-9, "{text}");
        }
    }

    #[test]
    fn every_array_is_counted() {
        let quantity = RoundingQuantity { m: 4, n: 2 };
        let (factor, metric, kept, prepared, weights) = (128, 64, 80, 64, 128);
        let panels = 8192;
        assert_eq!(quantity.panel_bytes(), panels);
        assert_eq!(
            quantity.bytes(),
            factor + metric + kept + prepared + weights + panels
        );
    }
}
