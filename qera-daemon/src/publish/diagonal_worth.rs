//! What is said of layers that an imatrix stands in for: their diagonal error, and that it is no
//! measure of their outputs.

use std::path::Path;

use crate::publish::layers::PublishedLayers;
use crate::publish::manifest::ratio;
use crate::solve::solution::LayerSolution;

/// As the README has it; empty where an imatrix stands in for none.
pub(crate) fn diagonal_worth(of: &PublishedLayers<'_>) -> String {
    let stand_ins: Vec<&LayerSolution> = of.outcomes.iter().filter_map(|o| o.stand_in()).collect();
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

/// Of those above zero; 0 where none is.
fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let logs: Vec<f64> = values.filter(|x| *x > 0.0).map(f64::ln).collect();
    if logs.is_empty() {
        return 0.0;
    }
    (logs.iter().sum::<f64>() / logs.len() as f64).exp()
}
