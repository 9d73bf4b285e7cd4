//! E = W - W~ of one layer, and its products with a few vectors.
//!
//! E is kept twice in f32 while a layer is solved, by columns and by rows, so that both of its products read it as it
//! lies in memory.

use faer::{Mat, MatRef};

use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::products::{products, products_f64};
use crate::host::transpose::{scaled_transpose, transposed};

/// The quantization error of a layer: m x n by columns, which is the stored [n, m] by rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorMatrix<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) m: usize,
    pub(crate) n: usize,
}

impl<'a> ErrorMatrix<'a> {
    /// A matrix whose columns are `m` numbers long.
    pub(crate) const fn new(values: &'a [f32], m: usize) -> Self {
        let n = values.len() / m;
        Self { values, m, n }
    }

    pub(crate) fn as_mat(&self) -> MatRef<'_, f32> {
        MatRef::from_column_major_slice(self.values, self.m, self.n)
    }

    /// E^T U for U (m x b) in f64: n x b.
    pub(crate) fn transposed_times_f64(&self, host: Compute<'_>, u: MatRef<'_, f64>) -> Mat<f64> {
        let w = products_f64(host, transposed(u).as_ref(), (self.values, self.m));
        transposed(w.as_ref())
    }
}

/// E by rows, scaled.
#[derive(Debug)]
pub(crate) struct ErrorByRows {
    rows: PageVec<f32>,
    /// Power of two that brings the largest |E_ij| near 1.
    scale: f32,
}

impl ErrorByRows {
    pub(crate) fn new(host: Compute<'_>, error: ErrorMatrix<'_>) -> Self {
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
            rows: scaled_transpose(host, error.values, error.m, scale),
            scale,
        }
    }

    /// What squares of scaled outputs are to be divided by.
    pub(crate) fn scale_squared(&self) -> f64 {
        f64::from(self.scale).powi(2)
    }

    /// E V for V (n x b) by f32 products: m x b.
    pub(crate) fn times_v(&self, host: Compute<'_>, v: MatRef<'_, f64>) -> Mat<f64> {
        let t = self.times(host, transposed(v).as_ref());
        transposed(t.as_ref()) * faer::Scale(1.0 / f64::from(self.scale))
    }

    /// E V for V (n x b) in f64: m x b.
    pub(crate) fn times_v_f64(&self, host: Compute<'_>, v: MatRef<'_, f64>) -> Mat<f64> {
        let t = products_f64(host, transposed(v).as_ref(), (&self.rows, v.nrows()));
        let mut t = transposed(t.as_ref());
        t *= faer::Scale(1.0 / f64::from(self.scale));
        t
    }

    /// s E X for X^T (b x n): b x m.
    pub(crate) fn times(&self, host: Compute<'_>, x: MatRef<'_, f64>) -> Mat<f64> {
        products(host, x, (&self.rows, x.ncols()))
    }

    /// s E^T U for U^T (b x m): b x n.
    pub(crate) fn transposed_times(
        &self,
        host: Compute<'_>,
        error: ErrorMatrix<'_>,
        mut u: Mat<f64>,
    ) -> Mat<f64> {
        u *= faer::Scale(f64::from(self.scale));
        products(host, u.as_ref(), (error.values, error.m))
    }
}
