//! V -> G V, G = E^T S E (n x n), never formed: 4 m n + 2 m^2 flops a column.
//!
//! E is scaled by a power of two and S by its largest diagonal element, so that f32 products
//! neither overflow nor vanish; eigenvectors do not notice.

use faer::{Mat, MatRef};

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
        let t = self.error.times(transposed(v).as_ref());
        let u = self.metric.apply_f32(t);
        let w = self.error.transposed_times(u);
        transposed(w.as_ref())
    }

    /// f64 products, in the same scaling.
    pub(crate) fn apply_f64(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let mut t = self.error.times_v_f64(v);
        t *= faer::Scale(self.error.scale_squared());
        let u = self.metric.apply_f64(&t);
        self.error.transposed_times_f64(u.as_ref())
    }
}
