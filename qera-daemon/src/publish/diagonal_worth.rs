//! What is said of layers that an imatrix stands in for: their diagonal error, and that this is no
//! measure of their outputs.

use std::path::Path;

use qera_core::reconstruct::Method;

use crate::publish::base_worth::BaseWorth;
use crate::publish::layers::PublishedLayers;
use crate::publish::manifest::ratio;
use crate::solve::solution::{LayerOutcome, LayerSolution};

/// The README's words on errors: on those that were measured, and on diagonal errors. Where an
/// imatrix stands in for rows, the latter say that nothing was measured.
pub(crate) fn errors_text(of: &PublishedLayers<'_>) -> String {
    let stand_ins = diagonal_worth(of);
    let none_measured = of
        .outcomes
        .iter()
        .all(|outcome| outcome.measured().is_none());
    if none_measured && !stand_ins.is_empty() {
        return stand_ins.trim_start().to_owned();
    }
    BaseWorth::new(of).errors() + &stand_ins
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

/// The geometric mean of the values above zero; 0 where there are none.
fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let logs: Vec<f64> = values.filter(|x| *x > 0.0).map(f64::ln).collect();
    if logs.is_empty() {
        return 0.0;
    }
    (logs.iter().sum::<f64>() / logs.len() as f64).exp()
}
