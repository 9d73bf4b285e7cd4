//! The correction of one layer, and what it is worth.

use qera_core::statistics::OptimumInterval;
use serde::{Deserialize, Serialize};

use crate::host::factors::Rounded;
use crate::host::output_sketch::OutputSketch;
use crate::host::solve_error::SolveError;
use crate::judge::held_out::Choice;
use crate::judge::scores::HeldOut;

/// The relative uncertainty of f that is told: below this it is negligible.
const UNCERTAINTY_TOLD: f64 = 1e-6;

/// What became of a layer. One that is not solved is published with zero factors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LayerOutcome<'a> {
    /// Its site has seen no row.
    Starved,
    /// Its site has seen too few rows for the first solve point.
    Waiting,
    /// It cannot be solved from the rows that came, and there is no earlier correction.
    Failed,
    /// Its rows have not been solved yet, and an imatrix stands in for them: the solution's errors
    /// are diagonal errors, and not f.
    Imatrix(&'a LayerSolution),
    /// It is solved.
    Solved(&'a LayerSolution),
}

impl<'a> LayerOutcome<'a> {
    /// The solution, where there is one.
    #[must_use]
    pub(crate) const fn solution(self) -> Option<&'a LayerSolution> {
        match self {
            Self::Imatrix(solution) | Self::Solved(solution) => Some(solution),
            Self::Starved | Self::Waiting | Self::Failed => None,
        }
    }

    /// The solution, where f was measured.
    #[must_use]
    pub(crate) const fn measured(self) -> Option<&'a LayerSolution> {
        match self {
            Self::Solved(solution) if solution.sketched.is_none() => Some(solution),
            _ => None,
        }
    }

    /// The solution, where a sketch stood for R: its errors are those of the window, and not f.
    #[must_use]
    pub(crate) const fn sketched(self) -> Option<&'a LayerSolution> {
        match self {
            Self::Solved(solution) if solution.sketched.is_some() => Some(solution),
            _ => None,
        }
    }

    /// The solution, where an imatrix stands in for rows.
    #[must_use]
    pub(crate) const fn stand_in(self) -> Option<&'a LayerSolution> {
        match self {
            Self::Imatrix(solution) => Some(solution),
            Self::Starved | Self::Waiting | Self::Failed | Self::Solved(_) => None,
        }
    }

    /// Whether the layer has a correction that does something.
    #[must_use]
    pub(crate) fn is_corrected(self) -> bool {
        self.solution().is_some_and(LayerSolution::is_corrected)
    }

    /// The outcome's name in the manifest.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starved => "starved",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Imatrix(solution) if solution.is_needed() => "imatrix",
            Self::Solved(solution) if solution.is_needed() => "solved",
            Self::Imatrix(_) | Self::Solved(_) => "nothing-to-correct",
        }
    }
}

/// The outcomes of a site's layers.
#[derive(Debug, Default)]
pub(crate) struct SolvedSite {
    /// The layers that were solved.
    pub(crate) solutions: Vec<LayerSolution>,
    /// The layers that could not be solved, and those whose correction would do harm.
    pub(crate) failed: Vec<FailedLayer>,
    /// What a device failed in, in words: the host did it.
    pub(crate) demoted: Vec<String>,
}

/// A layer without a new correction.
#[derive(Debug)]
pub(crate) struct FailedLayer {
    /// Index into the selected layers.
    pub(crate) layer: usize,
    /// What went wrong, in words.
    pub(crate) reason: String,
    /// What becomes of the layer.
    pub(crate) failure: Failure,
}

/// Why a layer has no new correction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It cannot be solved from the rows that came: an earlier correction stays.
    Unsolved,
    /// It was solved, and its correction would do harm. An earlier one is not trusted either, as
    /// nothing was measured of it on these rows: the layer goes out uncorrected.
    Harmful,
}

impl FailedLayer {
    /// A layer that cannot be solved from the rows that came.
    pub(crate) const fn unsolved(layer: usize, reason: String) -> Self {
        Self {
            layer,
            reason,
            failure: Failure::Unsolved,
        }
    }

    /// A layer whose correction would do harm.
    pub(crate) const fn harmful(layer: usize, reason: String) -> Self {
        Self {
            layer,
            reason,
            failure: Failure::Harmful,
        }
    }
}

/// The correction of one layer and its worth. Errors are f = tr(R P P^T): mean squared output error
/// of a row, summed over the outputs, on the rows seen; where an imatrix stands in for rows, with
/// its diagonal in the place of R; where a sketch stood for R, on the rows of the window.
#[derive(Debug, Clone)]
pub(crate) struct LayerSolution {
    /// Index into the selected layers.
    pub(crate) layer: usize,
    /// Number of rows that the layer's statistics are the mean of.
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
    /// The uncertainty of `error_with` that follows from R's, of massive and of constant channels;
    /// about an upper bound.
    pub(crate) doubt: f64,
    /// The factors as they are written, with f after that rounding.
    pub(crate) factors: Rounded,
    /// Why the factors are not in the asked type; `None` where they are.
    pub(crate) not_as_asked: Option<NotAsAsked>,
    /// Eigenvalues of G = E^T S E that the method captured, largest first; for QERA-exact without
    /// shrinkage they add up to what the correction takes off f.
    pub(crate) spectrum: Vec<f64>,
    /// The shrinkage, where the method is QERA-exact.
    pub(crate) choice: Option<Choice>,
    /// Error on held-out rows.
    pub(crate) held_out: Option<HeldOut>,
    /// What is known of f, where a sketch stood for R.
    pub(crate) sketched: Option<SketchedError>,
}

/// What a sketch says of f: no correction's is measured under R.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct SketchedError {
    /// l, of which l - 1 rows are kept.
    pub(crate) rows: usize,
    /// tr(G): f without a correction, exact.
    pub(crate) trace: f64,
    /// Between what and what the smallest f of this rank lies.
    pub(crate) optimum: OptimumBounds,
}

/// Between what and what the smallest f of a rank lies, for factors before rounding.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct OptimumBounds {
    /// tr(G) - sum lambda - k Delta.
    pub(crate) least: f64,
    /// tr(G) - sum lambda.
    pub(crate) most: f64,
}

impl SketchedError {
    /// Of a correction of this rank.
    ///
    /// # Errors
    /// What no stream leaves: a defect if it is ever seen.
    pub(crate) fn new(sketch: &OutputSketch, rank: usize) -> Result<Self, SolveError> {
        let OptimumInterval { least, most } =
            sketch.optimum(rank).map_err(SolveError::Statistic)?;
        Ok(Self {
            rows: sketch.kept() + 1,
            trace: sketch.totals().trace,
            optimum: OptimumBounds { least, most },
        })
    }
}

/// Why the factors are not written in the type that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NotAsAsked {
    /// The asked type loses too much: f would have been this.
    Loses(f64),
    /// The factors overflow in the asked type.
    Overflows,
    /// in_features is not a whole number of the type's blocks.
    NoWholeBlocks,
}

impl NotAsAsked {
    /// The reason, given f in the asked type; where a factor overflowed f is not finite.
    #[must_use]
    pub(crate) const fn by_error(error: f64) -> Self {
        if error.is_finite() {
            Self::Loses(error)
        } else {
            Self::Overflows
        }
    }
}

impl LayerSolution {
    /// The relative uncertainty of `error_with`, where it is worth telling.
    #[must_use]
    pub(crate) fn uncertainty(&self) -> Option<f64> {
        let relative = self.doubt / self.error_with;
        (relative > UNCERTAINTY_TOLD).then_some(relative)
    }

    /// Whether there is an output error to correct; without one the factors are zero.
    #[must_use]
    pub(crate) fn is_needed(&self) -> bool {
        let trace = self.sketched.map_or(0.0, |of| of.trace);
        self.error_without > 0.0 || trace > 0.0
    }

    /// Whether something was corrected: not where there is no error, and not by a method that
    /// corrects nothing.
    #[must_use]
    pub(crate) const fn is_corrected(&self) -> bool {
        self.rank_used > 0
    }

    /// Error on held-out rows relative to no correction, where something was corrected and there
    /// was an error on them.
    #[must_use]
    pub(crate) fn held_out_ratio(&self) -> Option<f64> {
        let held_out = self.held_out.filter(|_| self.is_corrected());
        let held_out = held_out.filter(|h| h.mean_without > 0.0)?;
        Some(held_out.mean / held_out.mean_without)
    }
}
