//! `--after-convergence`: what a site does with new rows once all of its layers have converged.

use crate::settings::{Settings, Until};

/// Share of the blocks that [`AfterConvergence::Sample`] folds.
const SAMPLED: f64 = 1.0 / 16.0;

/// `--after-convergence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterConvergence {
    /// Rows are folded and layers solved as before.
    Full,
    /// One block of sixteen is folded.
    Sample,
    /// Nothing is folded.
    Stop,
}

impl AfterConvergence {
    /// The value of this name.
    #[must_use]
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "sample" => Self::Sample,
            "stop" => Self::Stop,
            _ => Self::Full,
        }
    }

    /// Share of a closed site's blocks that is folded.
    #[must_use]
    pub(crate) const fn share(self) -> f64 {
        match self {
            Self::Full => 1.0,
            Self::Sample => SAMPLED,
            Self::Stop => 0.0,
        }
    }
}

impl Settings {
    /// Whether sites are closed when they have converged: a batch has no solve points.
    #[must_use]
    pub(crate) fn closes_sites(&self) -> bool {
        self.after_convergence != AfterConvergence::Full && self.until != Until::Once
    }
}
