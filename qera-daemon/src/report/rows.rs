//! The rows of a report's tables: every number as a person reads it.

use crate::observe::reporter::printable;
use crate::report::figures::{count, extent, percent, percent_or_none, share};
use crate::report::generation::{BeforeAndAfter, ReportedLayer};
use crate::report::history::HistoryPoint;
use crate::report::kinds::ReportedKind;
use crate::report::standing::ReportedState;

/// A kind of layers.
#[derive(Debug)]
pub(crate) struct KindRow {
    /// Its name.
    pub(crate) name: String,
    /// How many layers it has.
    pub(crate) layers: usize,
    /// How many of them are corrected.
    pub(crate) corrected: usize,
    /// The mean error alone,
    pub(crate) without: String,
    /// and with the correction.
    pub(crate) with: String,
    /// What is left of it on held-out rows.
    pub(crate) held_out: String,
    /// Their shrinkage.
    pub(crate) shrinkage: String,
    /// Their ranks.
    pub(crate) rank: String,
}

/// A layer.
#[derive(Debug)]
pub(crate) struct LayerRow {
    /// Its name.
    pub(crate) name: String,
    /// What became of it; by the state, where that knows more.
    pub(crate) status: String,
    /// Rows that it was solved from.
    pub(crate) rows: String,
    /// Its error alone,
    pub(crate) without: String,
    /// and with the correction.
    pub(crate) with: String,
    /// What is left of it on the rows seen,
    pub(crate) left: String,
    /// and on held-out rows.
    pub(crate) held_out: String,
    /// The shrinkage, and who chose it.
    pub(crate) shrinkage: String,
    /// Rank used, of the one asked for.
    pub(crate) rank: String,
    /// What W~ is stored in.
    pub(crate) quantizer: String,
}

/// A generation.
#[derive(Debug)]
pub(crate) struct GenerationRow {
    /// Its number.
    pub(crate) number: u64,
    /// Its rows.
    pub(crate) rows: String,
    /// Layers that it corrects.
    pub(crate) corrected: usize,
    /// What is left of the error on the rows seen,
    pub(crate) seen: String,
    /// on held-out ones,
    pub(crate) held_out: String,
    /// and on later ones.
    pub(crate) later: String,
}

impl KindRow {
    /// Of a kind.
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
    /// Of a layer.
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
    /// Of a generation.
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

/// An error; one that is an imatrix's says so.
fn error(of: Option<BeforeAndAfter>, which: fn(&BeforeAndAfter) -> f64) -> String {
    let Some(errors) = of else {
        return percent_or_none(None);
    };
    let said = percent(which(&errors));
    match errors.is_diagonal {
        true => format!("{said} (diagonal)"),
        false => said,
    }
}
