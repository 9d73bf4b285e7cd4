//! The report in a terminal: a line for each kind of layers, and for what is not corrected.

use crate::observe::reporter::printable;
use crate::report::figures::{count, percent};
use crate::report::folder::ReportedFolder;
use crate::report::generation::ReportedGeneration;
use crate::report::history::HistoryPoint;
use crate::report::kinds::kinds;
use crate::report::rows::{GenerationRow, KindRow};
use crate::report::standing::ReportedState;

/// The table. Names come from files, so that control characters in them are escaped.
#[must_use]
pub(crate) fn table(folder: &ReportedFolder, state: Option<&ReportedState>) -> String {
    let of = &folder.current;
    let mut lines = head(of);
    lines.push(String::new());
    lines.extend(table_of_kinds(of));
    lines.extend(of.passed_over.iter().map(|tensors| {
        format!(
            "not corrected: {} ({}, {} of the parameters): {}",
            tensors.tensors,
            tensors.count,
            percent(tensors.share),
            tensors.why
        )
    }));
    lines.extend(generations(folder));
    lines.extend(state.map(|state| format!("state: {}", state.said().join(" "))));
    let reasons = of.inputs.quarantined.iter();
    lines.extend(reasons.map(|reason| format!("quarantined: {reason}")));
    lines.iter().map(|line| printable(line) + "\n").collect()
}

fn head(of: &ReportedGeneration) -> Vec<String> {
    let mut lines = vec![format!(
        "generation {}: {} of {} layers corrected, {} on {}, {} shards, {} rows{}",
        of.generation.unwrap_or_default(),
        of.corrected(),
        of.layers.len(),
        of.settings.method,
        of.quantizers(),
        of.inputs.shards,
        count(of.rows()),
        if of.inputs.drained {
            ""
        } else {
            ", more to come"
        },
    )];
    lines.extend(of.bits_per_weight.as_ref().map(|bits| {
        format!(
            "{:.2} bits a weight ({}) + {:.2} of the adapter = {:.2}",
            bits.base, bits.base_as, bits.adapter, bits.both
        )
    }));
    lines
}

fn table_of_kinds(of: &ReportedGeneration) -> Vec<String> {
    let rows: Vec<_> = kinds(&of.layers).iter().map(KindRow::new).collect();
    let width = rows.iter().map(|row| row.name.chars().count()).max();
    let width = width.unwrap_or_default().max("layers".len());
    let mut lines = vec![format!(
        "{:<width$} {:>6} {:>9} {:>9} {:>9} {:>9} {:>12} {:>9}",
        "layers", "count", "corrected", "error", "with", "held-out", "shrinkage", "rank"
    )];
    lines.extend(rows.iter().map(|row| {
        format!(
            "{:<width$} {:>6} {:>9} {:>9} {:>9} {:>9} {:>12} {:>9}",
            row.name,
            row.layers,
            row.corrected,
            row.without,
            row.with,
            row.held_out,
            row.shrinkage,
            row.rank
        )
    }));
    lines.push(
        "(error: of the output, relative to its power, means over layers; held-out: what is left \
         on rows that were left out)"
            .into(),
    );
    lines
}

fn generations(folder: &ReportedFolder) -> Vec<String> {
    let points = folder.generations().into_iter().map(HistoryPoint::new);
    let shown = points.map(|point| {
        let row = GenerationRow::new(&point);
        format!(
            "generation {}: {} rows, {} layers, {} of the error left, held-out {}",
            row.number, row.rows, row.corrected, row.seen, row.held_out
        )
    });
    let left_out = folder.left_out.iter();
    let left_out = left_out.map(|of| format!("generation {} is left out: {}", of.number, of.why));
    shown.chain(left_out).collect()
}
