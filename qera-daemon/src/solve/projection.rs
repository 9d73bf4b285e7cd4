//! From a layer's E and S to its low-rank term: V, rotated to the eigenvectors of V^T G V in f64,
//! cut at the numerical rank.

use faer::{Mat, MatRef};

use crate::host::compute::Compute;
use crate::host::dense::{Eigenpairs, eigen};
use crate::host::factors::Correction;
use crate::host::second_moment::SecondMoment;
use crate::host::second_moment::metric::Metric;
use crate::host::solve_error::SolveError;
use crate::host::subspace::cycle::Subspace;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::host::subspace::operator::ErrorOperator;
use crate::host::subspace::top::{Effort, top_subspace};

/// The parts that a layer's projection needs: E, S and what multiplies.
#[derive(Clone, Copy)]
pub(crate) struct Projector<'a> {
    pub(crate) compute: Compute<'a>,
    pub(crate) operator: ErrorOperator<'a>,
    pub(crate) second_moment: &'a SecondMoment,
    /// The number of rows that the second moment is of.
    pub(crate) rows: u64,
}

impl Projector<'_> {
    /// Solves a correction of rank `rank`, or of less where there are fewer rows or the problem has
    /// less rank. It starts cold, or from the vectors of the solve point before.
    ///
    /// # Errors
    /// [`SolveError`].
    pub(crate) fn project(
        &self,
        rank: usize,
        start: Option<&Mat<f64>>,
    ) -> Result<Projected, SolveError> {
        let rank = rank.min(row_rank(self.operator.metric, self.rows));
        if rank == 0 {
            return Ok(Projected::nothing(self.operator.error));
        }
        let effort = match start {
            Some(vectors) if vectors.ncols() > 0 => Effort::Warm(vectors),
            _ => Effort::Final,
        };
        let found = top_subspace(&self.operator, rank, effort)?;
        self.correct(found, rank)
    }

    /// The correction by the first `rank` of the vectors found, and its eigenvalues. T = E V and R
    /// T are computed in f64 once; everything else follows from them.
    fn correct(&self, found: Subspace, rank: usize) -> Result<Projected, SolveError> {
        let (error, metric) = (self.operator.error, self.operator.metric);
        let Subspace {
            vectors: found,
            beyond,
            ..
        } = found;
        let v: MatRef<'_, f64> = found.subcols(0, rank.min(found.ncols()));
        let t = error.times_v_f64(v);
        let rt = self.second_moment.apply(self.compute, t.as_ref());
        let rt = rt.unwrap_or_else(|| Mat::zeros(error.m(), 0));
        let Eigenpairs {
            vectors: rotation,
            values: mut spectrum,
        } = eigen(&self.operator.outputs.map_or_else(
            || metric.rayleigh(&t, &rt),
            |outputs| outputs.rayleigh(v, &metric.rayleigh(&t, &rt)),
        ))?;
        let largest = spectrum.first().copied().unwrap_or_default();
        let noise = largest * f64::EPSILON * error.n().max(error.m()) as f64;
        let used = spectrum.iter().take_while(|&&value| value > noise).count();
        spectrum.truncate(used);
        let rotation = rotation.as_ref().subcols(0, used);
        Ok(Projected {
            correction: Correction::project(v, &t, &rt, rotation),
            spectrum,
            vectors: found,
            beyond,
        })
    }
}

/// The factors, the captured eigenvalues, and the vectors that a later warm solve starts from.
pub(crate) struct Projected {
    pub(crate) correction: Correction,
    pub(crate) spectrum: Vec<f64>,
    pub(crate) vectors: Mat<f64>,
    /// Approximate eigenvectors that follow those of the correction in the basis.
    pub(crate) beyond: Mat<f64>,
}

impl Projected {
    /// A correction of rank 0.
    pub(crate) fn nothing(error: &ErrorOperand<'_>) -> Self {
        Self {
            correction: Correction::none(error.m(), error.n()),
            spectrum: Vec::new(),
            vectors: Mat::zeros(error.n(), 0),
            beyond: Mat::zeros(error.n(), 0),
        }
    }
}

/// The largest rank that the rows allow: R has no more rank than rows, and what f32 sums leave
/// beyond that is noise. Shrinkage and the diagonal methods give S full rank.
fn row_rank(metric: &Metric<'_>, rows: u64) -> usize {
    match metric {
        Metric::Shrunk { shrinkage, .. } if *shrinkage <= 0.0 => {
            usize::try_from(rows).unwrap_or(usize::MAX)
        }
        _ => usize::MAX,
    }
}
