//! R and E in, A and B out: the solve of one layer without a checkpoint, a window or a report
//! around it.

use faer::{Mat, MatRef};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::output_sketch::OutputSketch;
use crate::host::second_moment::metric::Metric;
use crate::host::second_moment::packed::PackedR;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::solve_error::SolveError;
use crate::host::subspace::cycle::Subspace;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::host::subspace::operator::{ErrorOperator, SketchedOutputs};
use crate::host::subspace::top::{Effort, is_dense, top_subspace};

/// QERA-exact for one layer.
#[derive(Debug, Clone, Copy)]
pub struct LayerProblem<'a> {
    /// R, m x m: upper triangle by rows.
    pub autocorrelation: &'a [f64],
    /// E = W - W~, m x n by columns: as a checkpoint stores weights.
    pub error: &'a [f32],
    /// in_features m.
    pub in_features: usize,
    /// The rank k.
    pub rank: usize,
}

/// The low-rank term and what a later solve starts from.
#[derive(Debug, Clone)]
pub struct LowRankTerm {
    /// A, m x k.
    pub a: Mat<f64>,
    /// B^T, n x k.
    pub b_transposed: Mat<f64>,
    /// The top eigenvectors of G, and some beyond the first k.
    pub vectors: Mat<f64>,
    /// The eigenvalues of G that A B takes off tr(R E E^T), largest first.
    pub captured: Vec<f64>,
}

impl LayerProblem<'_> {
    /// Computes C = E V V^T, V being the top k eigenvectors of E^T R E. It starts cold, or by one
    /// cycle from the vectors of a solve with an earlier R (excess 1e-8 to 1e-6 after a change of 5
    /// %, up to 1e-5 where f is 1e-8 of tr G).
    ///
    /// Memory: R in f32 (4 m^2 bytes) and a second E (4 m n bytes).
    ///
    /// # Errors
    /// [`SolveError`] when products overflow or the dense eigensolver does not converge.
    ///
    /// ```
    /// use qera_daemon::{Compute, Cores, Kernel, LayerProblem};
    /// // R = diag(1, 4), E = [[3, 0], [0, 2]]: the second output has the larger error, 16 of 25.
    /// let problem = LayerProblem {
    ///     autocorrelation: &[1.0, 0.0, 4.0],
    ///     error: &[3.0, 0.0, 0.0, 2.0],
    ///     in_features: 2,
    ///     rank: 1,
    /// };
    /// let cores = Cores::new(1);
    /// let _core = cores.take();
    /// let term = problem.solve(Compute::new(Kernel::best(), &cores), None)?;
    /// assert!((term.captured[0] - 16.0).abs() < 1e-9);
    /// assert!((term.a[(1, 0)] * term.b_transposed[(1, 0)] - 2.0).abs() < 1e-9);
    /// # Ok::<(), qera_daemon::SolveError>(())
    /// ```
    pub fn solve(
        &self,
        compute: Compute<'_>,
        warm: Option<MatRef<'_, f64>>,
    ) -> Result<LowRankTerm, SolveError> {
        let m = self.in_features;
        let r = PreparedR::new(compute, PackedR::new(self.autocorrelation, m));
        let metric = Metric::Shrunk {
            r: &r,
            shrinkage: 0.0,
        };
        let error = ErrorOperand::new(compute, ColumnMajor::new(self.error, m), r.in_f64);
        let operator = ErrorOperator {
            error: &error,
            metric: &metric,
            outputs: None,
        };
        let warm = warm.map(|v| v.to_owned()).filter(|v| v.ncols() > 0);
        let effort = warm.as_ref().map_or(Effort::Final, Effort::Warm);
        LowRankTerm::of(&operator, self.rank, effort)
    }
}

/// QERA-exact for one layer, from a sketch of its output errors.
#[derive(Debug, Clone, Copy)]
pub struct SketchedProblem<'a> {
    /// What stands for G.
    pub sketch: &'a OutputSketch,
    /// The diagonal of R, over the same rows.
    pub diagonal: &'a [f64],
    /// E = W - W~, m x n by columns.
    pub error: &'a [f32],
    /// k.
    pub rank: usize,
    /// a: how far R is shrunk to its diagonal.
    pub shrinkage: f64,
}

impl SketchedProblem<'_> {
    /// C = E V V^T, V being the top k eigenvectors of (1 - a) S^T S + a E^T D E.
    ///
    /// # Errors
    /// As [`LayerProblem::solve`].
    pub fn solve(&self, compute: Compute<'_>) -> Result<LowRankTerm, SolveError> {
        let metric = Metric::of_diagonal(self.diagonal.to_vec());
        let error = ColumnMajor::new(self.error, self.diagonal.len());
        let error = ErrorOperand::new(compute, error, false);
        let rows = self.sketch.matrix();
        let operator = ErrorOperator {
            error: &error,
            metric: &metric,
            outputs: Some(SketchedOutputs {
                rows: rows.as_ref(),
                shrinkage: self.shrinkage,
            }),
        };
        LowRankTerm::of(&operator, self.rank, Effort::Final)
    }
}

impl LowRankTerm {
    fn of(
        operator: &ErrorOperator<'_>,
        rank: usize,
        effort: Effort<'_>,
    ) -> Result<Self, SolveError> {
        let error = operator.error;
        let Subspace {
            vectors, values, ..
        } = top_subspace(operator, rank, effort)?;
        let v = vectors.subcols(0, values.len());
        let unit = operator.unit();
        // A is computed in f64: f32 products would leave 1e-13 of tr G in f, which is more than
        // 1e-6 of f after a nearly exact fit. A warm solve is not that exact anyway.
        let a = match effort {
            Effort::Final => error.times_v_f64(v),
            Effort::Warm(_) => error.times_v(v),
        };
        Ok(Self {
            a,
            b_transposed: v.to_owned(),
            captured: values.iter().map(|value| value * unit).collect(),
            vectors: if is_dense(error.n(), rank) {
                Mat::zeros(error.n(), 0)
            } else {
                vectors
            },
        })
    }
}
