//! The correction of one layer, and what it is worth.

use crate::host::factors::Rounded;
use crate::judge::held_out::Choice;
use crate::judge::scores::HeldOut;

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    /// Solved.
    Solved,
    /// Its site has seen no row: zero factors.
    Starved,
    /// Its site has seen too few rows for the first solve point: zero factors until then.
    Waiting,
    /// The output error is zero already: zero factors.
    NothingToCorrect,
}

/// The correction of one layer and its worth. Errors are f = tr(R P P^T): mean squared output error of
/// a row, summed over the outputs, on the rows seen.
#[derive(Debug, Clone)]
pub(crate) struct LayerSolution {
    /// Index into the selected layers.
    pub(crate) layer: usize,
    /// What became of it.
    pub(crate) status: Status,
    /// Rows that its statistics are the mean of.
    pub(crate) rows: u64,
    /// Rank really used: at most the numerical rank of the problem.
    pub(crate) rank_used: usize,
    /// tr(R W W^T).
    pub(crate) output_power: f64,
    /// f without correction.
    pub(crate) error_without: f64,
    /// f with the correction, before rounding.
    pub(crate) error_with: f64,
    /// f when what is written is rounded to bf16: what a bf16 engine applies (infinite: overflow).
    pub(crate) error_bf16: f64,
    /// The factors as they are written, with f after that rounding.
    pub(crate) factors: Rounded,
    /// Set when the asked dtype lost too much: what f would have been (infinite: overflow).
    pub(crate) error_in_asked_dtype: Option<f64>,
    /// Eigenvalues of G = E^T S E that the method captured, largest first; for QERA-exact without shrinkage
    /// they add up to what the correction takes off f.
    pub(crate) spectrum: Vec<f64>,
    /// The shrinkage, for QERA-exact.
    pub(crate) choice: Option<Choice>,
    /// Error on held-out rows.
    pub(crate) held_out: Option<HeldOut>,
}
