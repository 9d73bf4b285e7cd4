//! The error of a layer that was solved from a sketch, without R. The sketch gives the interval of
//! the smallest f, and the written factors are measured on the held-out window, whose rows are some
//! of those seen.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::publish::asked_dtype::in_asked_dtype;
use crate::publish::layers::PublishedLayers;
use crate::publish::ratio::{geometric_mean, ratio};
use crate::solve::solution::LayerSolution;

/// The mean squared output error of a row of the window. It is not f, which is over all rows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WindowErrorRecord {
    /// The mean of |x W|^2 over the rows of the window.
    pub(crate) power: f64,
    /// The error without correction.
    pub(crate) without: f64,
    /// The error with the correction, before its factors are rounded.
    pub(crate) with: f64,
    /// The error with the factors rounded to the type that is written.
    pub(crate) rounded: f64,
    /// The error when the written factors are rounded to bf16; null if that overflows.
    pub(crate) rounded_bf16: Option<f64>,
    /// In the asked dtype, where a wider one was written: a number, "overflow" or
    /// "no-whole-blocks".
    pub(crate) in_asked_dtype: Option<Value>,
    /// `without` / `power`.
    pub(crate) relative_without: f64,
    /// `rounded` / `power`.
    pub(crate) relative_with: f64,
}

impl WindowErrorRecord {
    /// The errors of a layer that was solved from a sketch.
    pub(crate) fn new(solution: &LayerSolution) -> Self {
        let power = solution.output_power;
        Self {
            power,
            without: solution.error_without,
            with: solution.error_with,
            rounded: solution.factors.error,
            rounded_bf16: Some(solution.error_bf16).filter(|error| error.is_finite()),
            in_asked_dtype: solution.not_as_asked.map(in_asked_dtype),
            relative_without: ratio(solution.error_without, power),
            relative_with: ratio(solution.factors.error, power),
        }
    }
}

/// The README's words on these errors; empty where no layer was solved from a sketch.
pub(crate) fn window_worth(of: &PublishedLayers<'_>) -> String {
    let sketched = of.outcomes.iter().filter_map(|outcome| outcome.sketched());
    let sketched: Vec<&LayerSolution> = sketched.filter(|s| s.is_corrected()).collect();
    if sketched.is_empty() {
        return String::new();
    }
    let mean = |error: fn(&LayerSolution) -> f64| geometric_mean(sketched.iter().map(|s| error(s)));
    let without = mean(|s| ratio(s.error_without, s.output_power));
    let with = mean(|s| ratio(s.factors.error, s.output_power));
    format!(
        "
R of {} of the corrected layers was not gathered: a sketch of their output errors stood for it, and what the
correction leaves of all rows is not known. On the rows of the window, which are some of them, the squared output error
over the output's power is {without:.2e} without the adapter and {with:.2e} with it (geometric means).
",
        sketched.len()
    )
}
