//! What is said of layers that an imatrix stands in for: their diagonal error, and that this is no
//! measure of their outputs.

use std::path::Path;

use qera_core::reconstruct::Method;

use crate::publish::base_worth::BaseWorth;
use crate::publish::layers::PublishedLayers;
use crate::publish::ratio::{geometric_mean, ratio};
use crate::publish::window_error::window_worth;
use crate::solve::solution::{LayerOutcome, LayerSolution};

/// The README's words on errors: on those that were measured, on those of the window's rows, and on
/// diagonal errors. Where there are none of the first, the others say that nothing was measured.
pub(crate) fn errors_text(of: &PublishedLayers<'_>) -> String {
    let others = window_worth(of) + &diagonal_worth(of);
    let none_measured = of
        .outcomes
        .iter()
        .all(|outcome| outcome.measured().is_none());
    if none_measured && !others.is_empty() {
        return others.trim_start().to_owned();
    }
    BaseWorth::new(of).errors() + &others
}

/// The methods by which the layers were corrected; where there are two, each with its number of
/// layers.
pub(crate) fn methods_text(of: &PublishedLayers<'_>) -> String {
    let method = of.settings.solve.method.name();
    let corrected = || of.outcomes.iter().filter(|outcome| outcome.is_corrected());
    let is_stand_in = |outcome: &&LayerOutcome<'_>| outcome.stand_in().is_some();
    let stand_ins = corrected().filter(is_stand_in).count();
    let by_imatrix = format!("method `{}` from an imatrix", Method::of_mean_squares());
    match corrected().count() - stand_ins {
        _ if stand_ins == 0 => format!("by method `{method}`"),
        0 => format!("by {by_imatrix}"),
        by_rows => {
            format!("({by_rows} by method `{method}` from rows, {stand_ins} by {by_imatrix})")
        }
    }
}

/// The README's words on diagonal errors; empty where no imatrix stands in.
fn diagonal_worth(of: &PublishedLayers<'_>) -> String {
    let stand_ins = of.outcomes.iter().filter_map(|o| o.stand_in());
    let stand_ins: Vec<&LayerSolution> = stand_ins.filter(|s| s.is_corrected()).collect();
    if stand_ins.is_empty() {
        return String::new();
    }
    let files = of.settings.imatrix.files.iter().map(|path| quoted(path));
    let files: Vec<String> = files.collect();
    let mean =
        |error: fn(&LayerSolution) -> f64| geometric_mean(stand_ins.iter().map(|s| error(s)));
    let without = mean(|s| ratio(s.error_without, s.output_power));
    let with = mean(|s| ratio(s.factors.error, s.output_power));
    format!(
        "
No row of {} of the corrected layers was seen: what stands in is E[x^2] of an imatrix ({}), and QERA-approx
corrects them. Their output error is not measured. Their diagonal error, which it would be if no two channels were
correlated, is {without:.2e} without the adapter and {with:.2e} with it (over the diagonal power, geometric means).
",
        stand_ins.len(),
        files.join(", ")
    )
}

fn quoted(path: &Path) -> String {
    format!("`{}`", path.display())
}
