//! The rows of a report's tables, with every number as a person reads it.

use crate::observe::reporter::printable;
use crate::report::figures::{count, extent, percent, percent_or_none, share};
use crate::report::generation::{BeforeAndAfter, ReportedLayer};
use crate::report::history::HistoryPoint;
use crate::report::kinds::ReportedKind;
use crate::report::standing::ReportedState;

/// The row of a kind of layers.
#[derive(Debug)]
pub(crate) struct KindRow {
    /// The kind's name.
    pub(crate) name: String,
    /// Number of its layers.
    pub(crate) layers: usize,
    /// Number of its layers that are corrected.
    pub(crate) corrected: usize,
    /// The mean error of the quantized layers without a correction.
    pub(crate) without: String,
    /// The mean error with the correction.
    pub(crate) with: String,
    /// The share of the error that is left on held-out rows.
    pub(crate) held_out: String,
    /// The range of the shrinkage.
    pub(crate) shrinkage: String,
    /// The range of ranks.
    pub(crate) rank: String,
}

/// The row of a layer.
#[derive(Debug)]
pub(crate) struct LayerRow {
    /// The layer's name.
    pub(crate) name: String,
    /// The layer's outcome, or its standing in the state where that knows more.
    pub(crate) status: String,
    /// The error of the quantized layer without a correction.
    pub(crate) rows: String,
    /// The error with the correction.
    pub(crate) without: String,
    /// and with the correction.
    pub(crate) with: String,
    /// The share of it that is left on the rows seen,
    pub(crate) left: String,
    /// and on held-out rows.
    pub(crate) held_out: String,
    /// The shrinkage, and where it comes from.
    pub(crate) shrinkage: String,
    /// The rank used, and the one asked for.
    pub(crate) rank: String,
    /// The format in which W~ is stored.
    pub(crate) quantizer: String,
}

/// The row of a generation.
#[derive(Debug)]
pub(crate) struct GenerationRow {
    /// The generation's number.
    pub(crate) number: u64,
    /// How many rows the input has.
    pub(crate) rows: String,
    /// Number of layers that it corrects.
    pub(crate) corrected: usize,
    /// The share of the error that is left on the rows seen,
    pub(crate) seen: String,
    /// on held-out rows,
    pub(crate) held_out: String,
    /// and on later rows.
    pub(crate) later: String,
}

impl KindRow {
    /// The row of this kind.
    #[must_use]
    pub(crate) fn new(of: &ReportedKind<'_>) -> Self {
        let errors = of.relative();
        let corrected = of.layers.iter().filter(|layer| layer.is_corrected());
        Self {
            name: printable(&of.name),
            layers: of.layers.len(),
            corrected: corrected.count(),
            without: error(errors, |of| of.without),
            with: error(errors, |of| of.with),
            held_out: percent_or_none(of.held_out()),
            shrinkage: extent(of.shrinkage(), 2),
            rank: extent(of.rank(), 0),
        }
    }
}

impl LayerRow {
    /// The row of this layer.
    #[must_use]
    pub(crate) fn new(of: &ReportedLayer, state: Option<&ReportedState>) -> Self {
        let errors = of.relative();
        let standing = state.and_then(|state| state.layer(&of.name));
        let status = match standing {
            Some(standing) => standing.status.name().to_owned(),
            None if of.converged && of.is_solved() => format!("{}, converged", of.status),
            None => printable(&of.status),
        };
        let shrinkage = of.shrinkage.map(|a| match &of.shrinkage_origin {
            Some(origin) => printable(&format!("{a:.2} ({origin})")),
            None => format!("{a:.2}"),
        });
        Self {
            name: printable(&of.name),
            status,
            rows: count(of.rows),
            without: error(errors, |of| of.without),
            with: error(errors, |of| of.with),
            left: percent_or_none(of.left()),
            held_out: share(of.held_out()),
            shrinkage: shrinkage.unwrap_or_else(|| percent_or_none(None)),
            rank: format!("{} of {}", of.rank_used, of.rank_asked),
            quantizer: printable(&of.quantizer),
        }
    }
}

impl GenerationRow {
    /// The row of this generation.
    #[must_use]
    pub(crate) fn new(of: &HistoryPoint) -> Self {
        Self {
            number: of.number,
            rows: count(of.rows),
            corrected: of.corrected,
            seen: percent_or_none(of.seen),
            held_out: percent_or_none(of.held_out),
            later: percent_or_none(of.later),
        }
    }
}

/// An error as text; one of the window, or an imatrix's diagonal one, is marked as such.
fn error(of: Option<BeforeAndAfter>, which: fn(&BeforeAndAfter) -> f64) -> String {
    let Some(errors) = of else {
        return percent_or_none(None);
    };
    let said = percent(which(&errors));
    match errors.kind.word() {
        Some(word) => format!("{said} ({word})"),
        None => said,
    }
}
