//! The last look at a correction before it may be published: with it, no error may be larger than
//! without it.
//!
//! A correction is a projection, C = E V V^T, and takes ||x E V||^2 >= 0 off the error of every row
//! x (docs/design/mathematics.md, "Never worse"). So one that does harm has gone wrong in
//! numbers: V that is not orthonormal, because R is beyond what f32 products can tell, or A and B
//! that lose too much when they are rounded. Which one it was does not matter here.

use core::fmt;

use crate::judge::scores::HeldOut;
use crate::solve::solution::LayerSolution;

/// Errors that differ by less than this, relative to the error without correction, are equal: that
/// error is measured no better.
const MEASURED_TO: f64 = 1e-6;

/// What a correction would make worse.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Harm {
    /// The error on the rows that it was solved from, with A and B as they would be written.
    Rows(Rise),
    /// The error on held-out rows, by more than its interval.
    HeldOut(Rise),
}

/// An error that is larger with a correction than without it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rise {
    without: f64,
    with: f64,
}

impl Harm {
    /// The harm that the correction of a layer would do; `None` where it does none. Where a sketch
    /// stood for R, the rows that it was solved from are those of the window, and a rise counts
    /// beside tr(G), the error on all rows.
    pub(crate) fn of(solution: &LayerSolution) -> Option<Self> {
        if !solution.is_corrected() {
            return None;
        }
        let rise = Rise {
            without: solution.error_without,
            with: solution.factors.error,
        };
        let all_rows = solution.sketched.map_or(0.0, |of| of.trace);
        if rise.exceeds(MEASURED_TO * all_rows.max(rise.without)) {
            return Some(Self::Rows(rise));
        }
        solution.held_out.and_then(Self::on_held_out)
    }

    /// One block of rows has no interval, and shows nothing.
    fn on_held_out(of: HeldOut) -> Option<Self> {
        let rise = Rise {
            without: of.mean_without,
            with: of.mean,
        };
        let doubt = of.half_width?.max(MEASURED_TO * rise.without);
        rise.exceeds(doubt).then_some(Self::HeldOut(rise))
    }
}

impl Rise {
    fn exceeds(self, doubt: f64) -> bool {
        self.with > self.without + doubt
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, Rise { without, with }) = match self {
            Self::Rows(rise) => ("the rows seen", rise),
            Self::HeldOut(rise) => ("held-out rows", rise),
        };
        write!(
            f,
            "its correction would raise the output error on {rows} from {without:.3e} to {with:.3e}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_out(without: f64, mean: f64, half_width: Option<f64>) -> HeldOut {
        HeldOut {
            rows_solved: 900,
            rows_tested: 100,
            blocks: 4,
            mean,
            half_width,
            mean_without: without,
        }
    }

    #[test]
    fn held_out_rows_show_harm_beyond_their_interval() {
        let harm = |of| Harm::on_held_out(of).map(|harm| harm.to_string());
        assert_eq!(harm(held_out(1.0, 1.4, Some(0.5))), None);
        assert_eq!(harm(held_out(1.0, 1.4, None)), None);
        assert_eq!(harm(held_out(1.0, 1.0, Some(0.0))), None);
        let said = "its correction would raise the output error on held-out rows from 1.000e0 to \
            1.600e0";
        assert_eq!(harm(held_out(1.0, 1.6, Some(0.5))).as_deref(), Some(said));
    }

    #[test]
    fn what_is_measured_no_better_is_equal() {
        let rise = |with| Rise { without: 1.0, with }.exceeds(MEASURED_TO);
        assert!(!rise(1.0 + 5e-7));
        assert!(rise(1.0 + 2e-6));
    }
}
