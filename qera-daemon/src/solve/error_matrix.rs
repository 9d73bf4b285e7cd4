//! E = W - W~ of one layer, and its products with a few vectors.
//!
//! E is kept twice in f32 while a layer is solved, by columns and by rows, so that both of its products read it as it
//! lies in memory.

use faer::{Mat, MatRef};

use crate::checkpoint::Layer;
use crate::kernels::{Host, Numbers, products, products_f64};

use super::basis::turned;
use super::packed_r::transposed;

/// The quantization error of a layer: m x n by columns, which is the stored [n, m] by rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorMatrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) m: usize,
    pub(super) n: usize,
}

impl<'a> ErrorMatrix<'a> {
    /// A matrix of the layer's shape.
    pub(super) const fn of(layer: &Layer, values: &'a [f32]) -> Self {
        Self {
            values,
            m: layer.in_features,
            n: layer.out_features,
        }
    }

    pub(super) fn as_mat(&self) -> MatRef<'_, f32> {
        MatRef::from_column_major_slice(self.values, self.m, self.n)
    }

    /// E^T U for U (m x b) in f64: n x b.
    pub(super) fn transposed_times_f64(&self, host: Host<'_>, u: MatRef<'_, f64>) -> Mat<f64> {
        let w = products_f64(host, turned(u).as_ref(), (self.values, self.m));
        turned(w.as_ref())
    }
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

    /// E V for V (n x b) in f64: m x b.
    pub(super) fn times_v_f64(&self, host: Host<'_>, v: MatRef<'_, f64>) -> Mat<f64> {
        let t = products_f64(host, turned(v).as_ref(), (&self.rows, v.nrows()));
        let mut t = turned(t.as_ref());
        t *= faer::Scale(1.0 / f64::from(self.scale));
        t
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
