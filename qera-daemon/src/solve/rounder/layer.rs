//! Rounds the weights of one layer.
//!
//! `feedback` rounds once under R_a. `projected` (docs/design/mathematics.md, "Rounding")
//! alternates: a round of feedback under what A leaves of R_a, then the A and B that QERA-exact has
//! for the new E, for as long as that helps; after these, rounds of descent, each under what the
//! newest A leaves. The adapter's own A and B are solved afterwards, as for any W~.

use faer::Mat;
use qera_core::quantize::Levels;

use crate::error::Fatal;
use crate::host::column_major::ColumnMajor;
use crate::host::factors::Correction;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::row_weights::Extent;
use crate::host::round::descent::descend;
use crate::host::round::feedback::feedback;
use crate::host::round::lanes::RoundedColumns;
use crate::host::round::metric::{Absorbed, SiteMetric};
use crate::host::round::start::top_directions;
use crate::host::second_moment::SecondMoment;
use crate::host::second_moment::metric::Metric;
use crate::host::second_moment::packed::PackedR;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::host::subspace::operator::ErrorOperator;
use crate::settings::rounding::Rounding;
use crate::solve::projection::{Projected, Projector};
use crate::weights::frozen::record::MeasuredRounding;
use crate::weights::site_layers::{SiteLayers, rank_of};

/// The levels of a W~ that is not made yet.
const NO_LEVELS: Levels = Levels {
    step: 1.0,
    lowest: 0.0,
    highest: 0.0,
};

/// How many rounds of feedback and of descent there are at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    pub(crate) feedbacks: usize,
    pub(crate) descents: usize,
}

impl Rounds {
    /// The rounds of a W~ that is published.
    pub(crate) const FULL: Self = Self {
        feedbacks: 4,
        descents: 6,
    };
    /// Fewer rounds, which tell two values of a apart.
    pub(crate) const SHORT: Self = Self {
        feedbacks: 1,
        descents: 1,
    };
}

/// W~ of a layer, and its errors.
#[derive(Debug)]
pub(crate) struct RoundedLayer {
    /// The numbers of W~, by columns.
    pub(crate) values: PageVec<f32>,
    /// The levels of each column's blocks, one after the other.
    pub(crate) levels: Vec<Levels>,
    /// The errors on the rows that W~ was made from.
    pub(crate) record: MeasuredRounding,
}

/// W~ of a layer while it is being made.
pub(crate) struct Codes {
    pub(crate) values: PageVec<f32>,
    pub(crate) levels: Vec<Levels>,
}

impl Codes {
    fn lend(&mut self) -> RoundedColumns<'_> {
        RoundedColumns {
            values: &mut self.values,
            levels: &mut self.levels,
        }
    }
}

/// A site whose layers are rounded.
pub(crate) struct Rounder<'a> {
    pub(crate) layers: &'a SiteLayers<'a>,
    /// R of the rows that W~ may be made from.
    pub(crate) kept: &'a SecondMoment,
    /// The number of these rows, and their weight.
    pub(crate) over: Extent,
    /// R prepared for products.
    pub(crate) packed: PackedR<'a>,
    pub(crate) r: PreparedR<'a>,
    /// The shrinkage a.
    pub(crate) shrinkage: f64,
}

/// A layer while it is being rounded.
pub(crate) struct RoundedWork {
    pub(crate) weight: PageVec<f32>,
    pub(crate) rounded: Codes,
    pub(crate) refit: Refit,
}

/// The A and B that QERA-exact has for a W~.
pub(crate) struct Refit {
    pub(crate) correction: Correction,
    /// Vectors that the next refit starts from.
    vectors: Option<Mat<f64>>,
    /// How much the refit reduces tr(E^T R_a E).
    captured: f64,
}

impl Refit {
    /// A refit that is not made yet.
    pub(crate) fn none(of: &Codes, m: usize) -> Self {
        Self {
            correction: Correction::none(m, of.values.len() / m),
            vectors: None,
            captured: 0.0,
        }
    }
}

/// W - W~.
pub(crate) fn difference(weight: &[f32], rounded: &[f32]) -> PageVec<f32> {
    let mut error = PageVec::zeroed(weight.len());
    let pairs = weight.iter().zip(rounded);
    error
        .iter_mut()
        .zip(pairs)
        .for_each(|(e, (w, q))| *e = w - q);
    error
}

impl Rounder<'_> {
    /// Rounds a layer.
    ///
    /// # Errors
    /// [`Fatal`] naming the layer.
    pub(crate) fn round(&self, member: usize, rounds: Rounds) -> Result<RoundedWork, Fatal> {
        let failed = |reason| self.layers.failed(member, reason);
        let metric = SiteMetric::new(self.packed, self.shrinkage);
        let weight = self.layers.original(member)?;
        match self.layers.settings.rounding.rounding {
            Rounding::Projected => {
                let mut work = self.feed_back_in_turn(member, weight, &metric, rounds.feedbacks)?;
                for round in 0..rounds.descents {
                    if round > 0 {
                        work.refit = self.refit(&work, member)?;
                    }
                    self.descend(&mut work, &metric).map_err(failed)?;
                }
                Ok(work)
            }
            Rounding::Feedback | Rounding::Nearest => {
                let nothing = metric.nothing_absorbed();
                let rounded = self.feed_back(&weight, &metric, &nothing).map_err(failed)?;
                let refit = Refit::none(&rounded, self.packed.m());
                Ok(RoundedWork {
                    rounded,
                    weight,
                    refit,
                })
            }
        }
    }

    /// Alternates rounds of feedback under what A leaves with refits, until one does not help.
    fn feed_back_in_turn(
        &self,
        member: usize,
        weight: PageVec<f32>,
        metric: &SiteMetric<'_>,
        feedbacks: usize,
    ) -> Result<RoundedWork, Fatal> {
        let failed = |reason| self.layers.failed(member, reason);
        let start = self.start(member).map_err(failed)?;
        let rounded = self.round_under(&weight, metric, &start).map_err(failed)?;
        let mut best = RoundedWork {
            weight,
            rounded,
            refit: start,
        };
        best.refit = self.refit(&best, member)?;
        let mut least = self.error(&best);
        for _ in 1..feedbacks {
            let rounded = self.round_under(&best.weight, metric, &best.refit);
            let before = core::mem::replace(&mut best.rounded, rounded.map_err(failed)?);
            let refit = self.refit(&best, member)?;
            let refit_before = core::mem::replace(&mut best.refit, refit);
            let error = self.error(&best);
            if error >= least {
                (best.rounded, best.refit) = (before, refit_before);
                break;
            }
            least = error;
        }
        Ok(best)
    }

    /// The A to begin with: the top eigenvectors of R_a.
    fn start(&self, member: usize) -> Result<Refit, SolveError> {
        let layer = self.layers.layer(member);
        let a = top_directions(&self.metric(), self.rank(member))?;
        let mut correction = Correction::none(layer.in_features, layer.out_features);
        correction.ra = self.packed.times(self.layers.compute, a.as_ref());
        correction.factors.a = a;
        Ok(Refit {
            correction,
            vectors: None,
            captured: 0.0,
        })
    }

    fn rank(&self, member: usize) -> usize {
        rank_of(self.layers.settings.solve.method, self.layers.layer(member))
    }

    /// The S that QERA-exact solves with while rounding.
    fn metric(&self) -> Metric<'_> {
        Metric::Shrunk {
            r: &self.r,
            shrinkage: self.shrinkage,
        }
    }

    fn absorbed(&self, metric: &SiteMetric<'_>, refit: &Refit) -> Result<Absorbed, SolveError> {
        let Correction { factors, ra, .. } = &refit.correction;
        let share = self.layers.settings.rounding.base_share;
        metric.absorbed(factors.a.as_ref(), ra.as_ref(), share)
    }

    fn round_under(
        &self,
        weight: &[f32],
        metric: &SiteMetric<'_>,
        refit: &Refit,
    ) -> Result<Codes, SolveError> {
        self.feed_back(weight, metric, &self.absorbed(metric, refit)?)
    }

    fn feed_back(
        &self,
        weight: &[f32],
        metric: &SiteMetric<'_>,
        absorbed: &Absorbed,
    ) -> Result<Codes, SolveError> {
        let (grid, m) = (*self.layers.weights.grid(), self.packed.m());
        let mut rounded = self.no_codes(weight.len());
        let factor = metric.factor(absorbed)?;
        let weight = ColumnMajor::new(weight, m);
        feedback(self.layers.compute, &factor, weight, grid, rounded.lend());
        Ok(rounded)
    }

    fn descend(&self, work: &mut RoundedWork, metric: &SiteMetric<'_>) -> Result<(), SolveError> {
        let full = metric.full(&self.absorbed(metric, &work.refit)?);
        let grid = *self.layers.weights.grid();
        let weight = ColumnMajor::new(&work.weight, self.packed.m());
        descend(
            self.layers.compute,
            &full,
            weight,
            grid,
            work.rounded.lend(),
        );
        Ok(())
    }

    /// Memory for a W~ of this many numbers.
    pub(crate) fn no_codes(&self, numbers: usize) -> Codes {
        let m = self.packed.m();
        let blocks = m.div_ceil(self.layers.weights.grid().block_size());
        Codes {
            values: PageVec::zeroed(numbers),
            levels: vec![NO_LEVELS; numbers / m * blocks],
        }
    }

    /// Solves QERA-exact for the present W~, starting from where the last refit ended.
    ///
    /// # Errors
    /// [`Fatal`] naming the layer.
    pub(crate) fn refit(&self, work: &RoundedWork, member: usize) -> Result<Refit, Fatal> {
        let compute = self.layers.compute;
        let values = difference(&work.weight, &work.rounded.values);
        let error = ColumnMajor::new(&values, self.packed.m());
        let metric = self.metric();
        let error = ErrorOperand::new(compute, error, self.r.in_f64);
        let projector = Projector {
            compute,
            operator: ErrorOperator {
                error: &error,
                metric: &metric,
                outputs: None,
            },
            second_moment: self.kept,
            rows: self.over.rows,
        };
        let projected = projector.project(self.rank(member), work.refit.vectors.as_ref());
        let Projected {
            correction,
            spectrum,
            vectors,
            ..
        } = projected.map_err(|reason| self.layers.failed(member, reason))?;
        Ok(Refit {
            correction,
            vectors: Some(vectors),
            captured: spectrum.iter().sum(),
        })
    }

    /// f of the present W~ with its refit, under R_a.
    fn error(&self, work: &RoundedWork) -> f64 {
        let values = difference(&work.weight, &work.rounded.values);
        let error = ColumnMajor::new(&values, self.packed.m());
        self.power(error, &self.metric()) - work.refit.captured
    }

    /// tr(E^T R_a E).
    fn power(&self, error: ColumnMajor<'_>, metric: &Metric<'_>) -> f64 {
        let trace = self.packed.trace_with(self.layers.compute, error).sum();
        let mut on_diagonal = 0.0;
        for column in error.values.chunks_exact(error.rows) {
            let channels = column.iter().zip(metric.diagonal());
            on_diagonal += channels
                .map(|(e, d)| d * f64::from(*e).powi(2))
                .sum::<f64>();
        }
        (1.0 - self.shrinkage) * trace + self.shrinkage * metric.scale() * on_diagonal
    }
}
