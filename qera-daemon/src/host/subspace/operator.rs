//! V -> G V, G = E^T S E (n x n), never formed: 4 m n + 2 m^2 flops a column.
//!
//! Where R is not gathered, a sketch of the outputs stands for the part of it that is not diagonal:
//! G = (1 - a) S^T S + a E^T D E (`host/output_sketch.rs`).
//!
//! E is scaled by a power of two and S by its largest diagonal element, so that f32 products
//! neither overflow nor vanish; eigenvectors do not notice.

use faer::{Mat, MatRef};

use crate::host::dense::product;
use crate::host::second_moment::metric::Metric;
use crate::host::subspace::error_operand::ErrorOperand;
use crate::host::transpose::transposed;

/// The operator G, as its factors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorOperator<'a> {
    /// E.
    pub(crate) error: &'a ErrorOperand<'a>,
    /// S.
    pub(crate) metric: &'a Metric<'a>,
    /// What stands for G, where S is the diagonal of an R that is not gathered.
    pub(crate) outputs: Option<SketchedOutputs<'a>>,
}

/// A sketch S of the outputs, and how far it is shrunk toward E^T D E.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SketchedOutputs<'a> {
    /// S: kept x n.
    pub(crate) rows: MatRef<'a, f64>,
    /// a.
    pub(crate) shrinkage: f64,
}

impl SketchedOutputs<'_> {
    /// (1 - a) S^T S V / unit + a W, given W = E^T D E V in that unit, or nothing where a is 0.
    fn blend(&self, v: MatRef<'_, f64>, w: Option<Mat<f64>>, unit: f64) -> Mat<f64> {
        let along = product(self.rows, v);
        let own = product(self.rows.transpose(), along.as_ref());
        let own = own * faer::Scale((1.0 - self.shrinkage) / unit);
        match w {
            Some(w) => own + w * faer::Scale(self.shrinkage),
            None => own,
        }
    }

    /// V^T G V in true units, given V^T E^T D E V.
    pub(crate) fn rayleigh(&self, v: MatRef<'_, f64>, on_diagonal: &Mat<f64>) -> Mat<f64> {
        let along = product(self.rows, v);
        let own = product(along.transpose(), along.as_ref());
        own * faer::Scale(1.0 - self.shrinkage) + on_diagonal * faer::Scale(self.shrinkage)
    }
}

impl ErrorOperator<'_> {
    /// The factor from eigenvalues in this scaling to true ones.
    pub(crate) fn unit(&self) -> f64 {
        self.metric.scale() / self.error.scale_squared()
    }

    pub(crate) const fn n(&self) -> usize {
        self.error.n()
    }

    /// Operations of G times a vector.
    pub(crate) const fn flops(&self) -> usize {
        let (m, n) = (self.error.m(), self.n());
        match self.metric {
            Metric::Shrunk { .. } => 4 * m * n + 2 * m * m,
            Metric::Diagonal { .. } => 4 * m * n,
        }
    }

    /// f32 products; the values are scaled, the subspace is not affected.
    pub(crate) fn apply_f32(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        self.with_outputs(v, || self.by_metric_f32(v))
    }

    /// f64 products, in the same scaling.
    pub(crate) fn apply_f64(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        self.with_outputs(v, || self.by_metric_f64(v))
    }

    /// G V, given E^T S E V where that is asked for.
    fn with_outputs(&self, v: MatRef<'_, f64>, by_metric: impl FnOnce() -> Mat<f64>) -> Mat<f64> {
        match &self.outputs {
            None => by_metric(),
            Some(outputs) => {
                let on_diagonal = (outputs.shrinkage > 0.0).then(by_metric);
                outputs.blend(v, on_diagonal, self.unit())
            }
        }
    }

    fn by_metric_f32(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let t = self.error.times(transposed(v).as_ref());
        let u = self.metric.apply_f32(t);
        let w = self.error.transposed_times(u);
        transposed(w.as_ref())
    }

    fn by_metric_f64(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let mut t = self.error.times_v_f64(v);
        t *= faer::Scale(self.error.scale_squared());
        let u = self.metric.apply_f64(&t);
        self.error.transposed_times_f64(u.as_ref())
    }
}
