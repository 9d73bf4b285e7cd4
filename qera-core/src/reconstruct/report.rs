//! What a reconstruction achieved: the errors before and after it.

use super::Problem;
use super::metric::{GroupScratch, Metric};
use super::objective::power;

/// The objective before and after a reconstruction, and the output power that they are relative to.
/// All three are expectations over the inputs' statistic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// `tr(R E E^T)`: the expected squared output error with no correction.
    pub error_without: f64,
    /// `f(C) = tr(R P P^T)`, `P = E - A B`: what is left of it with the correction, before the
    /// factors are rounded.
    pub error_with: f64,
    /// `tr(R W W^T)`: the expected squared output itself; 0 when the weight was not lent, and what
    /// is relative to it is then infinite (or 0, when there is no error).
    pub output_power: f64,
    /// Leading eigenvalues of `G` (squared singular values of `R^{1/2} E`) written to the lent
    /// spectrum.
    pub spectrum_len: usize,
    /// Columns of `A` and rows of `B` that are used; the others are exact zeros.
    pub rank_used: usize,
}

impl Report {
    /// The report of a problem before any correction.
    pub(super) fn without_correction(
        problem: &Problem<'_>,
        scratch: &mut GroupScratch<'_>,
    ) -> Self {
        let truth = Metric::of(problem);
        // A statistic that rounding made slightly indefinite must not report a negative power.
        let error_without = power(&truth, &problem.error(), scratch).max(0.0);
        let output_power = problem
            .weight()
            .map_or(0.0, |weight| power(&truth, &weight, scratch).max(0.0));
        Self {
            error_without,
            error_with: error_without,
            output_power,
            spectrum_len: 0,
            rank_used: 0,
        }
    }

    /// [`error_without`](Self::error_without) as a share of the output power.
    ///
    /// ```
    /// use qera_core::reconstruct::Report;
    /// let report = Report { error_without: 0.5, error_with: 0.1, output_power: 2.0, spectrum_len: 0, rank_used: 1 };
    /// assert_eq!(report.relative_without(), 0.25);
    /// ```
    #[must_use]
    pub fn relative_without(&self) -> f64 {
        ratio(self.error_without, self.output_power)
    }

    /// [`error_with`](Self::error_with) as a share of the output power.
    ///
    /// ```
    /// use qera_core::reconstruct::Report;
    /// let report = Report { error_without: 0.5, error_with: 0.1, output_power: 2.0, spectrum_len: 0, rank_used: 1 };
    /// assert_eq!(report.relative_with(), 0.05);
    /// ```
    #[must_use]
    pub fn relative_with(&self) -> f64 {
        ratio(self.error_with, self.output_power)
    }

    /// The share of the error that the correction leaves.
    ///
    /// ```
    /// use qera_core::reconstruct::Report;
    /// let nothing = Report { error_without: 0.0, error_with: 0.0, output_power: 0.0, spectrum_len: 0, rank_used: 0 };
    /// assert_eq!(nothing.remaining(), 0.0);
    /// ```
    #[must_use]
    pub fn remaining(&self) -> f64 {
        ratio(self.error_with, self.error_without)
    }
}

/// `part / whole`, and 0 for nothing of nothing (an all-zero site has no error, not an undefined
/// one).
fn ratio(part: f64, whole: f64) -> f64 {
    if part > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_nothing_is_nothing() {
        assert!(ratio(0.0, 0.0).abs() < f64::MIN_POSITIVE);
        assert!((ratio(1.0, 4.0) - 0.25).abs() < f64::EPSILON);
        assert!(ratio(1.0, 0.0).is_infinite());
    }
}
