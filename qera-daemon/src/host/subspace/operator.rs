//! V -> G V, G = E^T S E (n x n), never formed: 4 m n + 2 m^2 flops a column.
//!
//! E is scaled by a power of two and S by its largest diagonal element, so that f32 products neither overflow nor vanish;
//! eigenvectors do not notice.

use faer::{Mat, MatRef};

use crate::host::compute::Compute;
use crate::host::second_moment::metric::Metric;
use crate::host::subspace::error_matrix::{ErrorByRows, ErrorMatrix};
use crate::host::transpose::transposed;

/// The operator.
#[derive(Debug)]
pub(crate) struct ErrorOperator<'a> {
    pub(crate) host: Compute<'a>,
    pub(crate) error: ErrorMatrix<'a>,
    pub(crate) metric: &'a Metric<'a>,
    pub(crate) by_rows: &'a ErrorByRows,
}

impl<'a> ErrorOperator<'a> {
    pub(crate) const fn new(
        host: Compute<'a>,
        error: ErrorMatrix<'a>,
        metric: &'a Metric<'a>,
        by_rows: &'a ErrorByRows,
    ) -> Self {
        Self {
            host,
            error,
            metric,
            by_rows,
        }
    }

    /// What an eigenvalue in this scaling is to be multiplied by.
    pub(crate) fn unit(&self) -> f64 {
        self.metric.scale() / self.by_rows.scale_squared()
    }

    pub(crate) const fn n(&self) -> usize {
        self.error.n
    }

    /// f32 products; the values are scaled, the subspace is not affected.
    pub(crate) fn apply_f32(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let t = self.by_rows.times(self.host, transposed(v).as_ref());
        let u = self.metric.apply_f32(self.host, t);
        let w = self.by_rows.transposed_times(self.host, self.error, u);
        transposed(w.as_ref())
    }

    /// f64 products, in the same scaling.
    pub(crate) fn apply_f64(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let mut t = self.by_rows.times_v_f64(self.host, v);
        t *= faer::Scale(self.by_rows.scale_squared());
        let u = self.metric.apply_f64(self.host, &t);
        self.error.transposed_times_f64(self.host, u.as_ref())
    }
}
