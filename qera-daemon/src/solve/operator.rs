//! V -> G V, G = E^T S E (n x n), never formed: 4 m n + 2 m^2 flops a column.
//!
//! E is scaled by a power of two and S by its largest diagonal element, so that f32 products neither overflow nor vanish;
//! eigenvectors do not notice.

use faer::{Mat, MatRef};

use crate::kernels::Host;

use super::basis::turned;
use super::error_matrix::{ErrorMatrix, TurnedError};
use super::metric::Metric;

/// The operator.
#[derive(Debug)]
pub(super) struct ErrorOperator<'a> {
    pub(super) host: Host<'a>,
    pub(super) error: ErrorMatrix<'a>,
    pub(super) metric: &'a Metric<'a>,
    pub(super) turned: &'a TurnedError,
}

impl<'a> ErrorOperator<'a> {
    pub(super) const fn new(
        host: Host<'a>,
        error: ErrorMatrix<'a>,
        metric: &'a Metric<'a>,
        turned: &'a TurnedError,
    ) -> Self {
        Self {
            host,
            error,
            metric,
            turned,
        }
    }

    /// What an eigenvalue in this scaling is to be multiplied by.
    pub(super) fn unit(&self) -> f64 {
        self.metric.scale() / self.turned.scale_squared()
    }

    pub(super) const fn n(&self) -> usize {
        self.error.n
    }

    /// f32 products; the values are scaled, the subspace is not affected.
    pub(super) fn apply_f32(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let t = self.turned.times(self.host, turned(v).as_ref());
        let u = self.metric.apply_f32(self.host, t);
        let w = self.turned.transposed_times(self.host, self.error, u);
        turned(w.as_ref())
    }

    /// f64 products, in the same scaling.
    pub(super) fn apply_f64(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let mut t = self.turned.times_v_f64(self.host, v);
        t *= faer::Scale(self.turned.scale_squared());
        let u = self.metric.apply_f64(self.host, &t);
        self.error.transposed_times_f64(self.host, u.as_ref())
    }
}
