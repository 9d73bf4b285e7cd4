//! V -> G V, G = E^T S E (n x n), never formed: 4 m n + 2 m^2 flops a column.
//!
//! E is kept twice in f32 while a layer is solved, by columns and by rows, so that both of its products read it as it
//! lies in memory. It is scaled by a power of two and S by its largest diagonal element, so that f32 products neither
//! overflow nor vanish; eigenvectors do not notice.

use faer::{Mat, MatRef};

use crate::kernels::{Host, Numbers, products};

use super::basis::turned;
use super::error_matrix::ErrorMatrix;
use super::metric::Metric;
use super::packed_r::transposed;

/// The operator.
#[derive(Debug)]
pub(super) struct ErrorOperator<'a> {
    pub(super) host: Host<'a>,
    pub(super) error: ErrorMatrix<'a>,
    pub(super) metric: &'a Metric<'a>,
    turned: &'a TurnedError,
}

/// E by rows, scaled.
#[derive(Debug)]
pub(super) struct TurnedError {
    rows: Numbers<f32>,
    /// Power of two that brings the largest |E_ij| near 1.
    scale: f32,
}

impl TurnedError {
    pub(super) fn new(host: Host<'_>, error: ErrorMatrix<'_>) -> Self {
        // By their bits, which grow with |E| and are compared many at a time.
        let bits = |e: &f32| (e.to_bits() & 0x7fff_ffff).cast_signed();
        let largest = error.values.iter().map(bits).fold(0, i32::max);
        let largest = f32::from_bits(largest.cast_unsigned());
        let exponent = if largest > 0.0 {
            -largest.log2().floor()
        } else {
            0.0
        };
        let scale = exponent.clamp(-120.0, 120.0).exp2();
        Self {
            rows: transposed(host, error.values, error.m, scale),
            scale,
        }
    }

    /// What squares of scaled outputs are to be divided by.
    pub(super) fn scale_squared(&self) -> f64 {
        f64::from(self.scale).powi(2)
    }

    /// E V for V (n x b) by f32 products: m x b.
    pub(super) fn times_v(&self, host: Host<'_>, v: MatRef<'_, f64>) -> Mat<f64> {
        let t = self.times(host, turned(v).as_ref());
        turned(t.as_ref()) * faer::Scale(1.0 / f64::from(self.scale))
    }

    /// s E X for X^T (b x n): b x m.
    pub(super) fn times(&self, host: Host<'_>, x: MatRef<'_, f64>) -> Mat<f64> {
        products(host, x, (&self.rows, x.ncols()))
    }

    /// s E^T U for U^T (b x m): b x n.
    pub(super) fn transposed_times(
        &self,
        host: Host<'_>,
        error: ErrorMatrix<'_>,
        mut u: Mat<f64>,
    ) -> Mat<f64> {
        u *= faer::Scale(f64::from(self.scale));
        products(host, u.as_ref(), (error.values, error.m))
    }
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
        let s = f64::from(self.turned.scale);
        let t = self.error.times(self.host, v) * faer::Scale(s * s);
        self.error
            .transposed_times(self.host, self.metric.apply_f64(self.host, &t).as_ref())
    }
}
