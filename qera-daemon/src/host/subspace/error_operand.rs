//! E = W - W~ of one layer, ready for its products with a few vectors.
//!
//! The host keeps E twice in f32 while a layer is solved, by columns as it came and by rows, so
//! that both of its products read it as it lies in memory. Where a device is lent E is uploaded
//! once, and multiplied both ways there until that fails; the host makes its second E when it needs
//! it.

use std::sync::OnceLock;

use faer::{Mat, MatRef};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::page_vec::PageVec;
use crate::host::offload::uploaded::Uploaded;
use crate::host::operand::Operand;
use crate::host::transpose::{scaled_transpose, transposed};

/// E, m x n, and s E by rows.
#[derive(Debug)]
pub(crate) struct ErrorOperand<'a> {
    compute: Compute<'a>,
    /// The matrix E as it was given.
    pub(crate) matrix: ColumnMajor<'a>,
    /// E on the device.
    there: Option<Uploaded<'a>>,
    by_columns: Operand<'a>,
    /// s E by rows, from the first product on that the host takes with it.
    by_rows: OnceLock<PageVec<f32>>,
    /// s, a power of two that brings the largest |E_ij| near 1.
    scale: f32,
    /// Whether every product is taken in f64.
    in_f64: bool,
}

impl<'a> ErrorOperand<'a> {
    /// Makes E ready: it is uploaded, or transposed when that is needed. `in_f64` says that f32
    /// products are not enough (`PreparedR::in_f64`).
    pub(crate) fn new(compute: Compute<'a>, error: ColumnMajor<'a>, in_f64: bool) -> Self {
        let device = compute.device;
        Self {
            compute,
            matrix: error,
            there: device.and_then(|device| Uploaded::new(device, error)),
            by_columns: compute.operand(error),
            by_rows: OnceLock::new(),
            scale: power_of_two(error.values),
            in_f64,
        }
    }

    /// in_features.
    pub(crate) const fn m(&self) -> usize {
        self.matrix.rows
    }

    /// out_features.
    pub(crate) const fn n(&self) -> usize {
        self.matrix.columns()
    }

    /// The divisor for squares of scaled outputs.
    pub(crate) fn scale_squared(&self) -> f64 {
        f64::from(self.scale).powi(2)
    }

    /// E V for V (n x b) by f32 products, where those are enough: m x b.
    pub(crate) fn times_v(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let t = self.times(transposed(v).as_ref());
        transposed(t.as_ref()) * faer::Scale(1.0 / f64::from(self.scale))
    }

    /// E V for V (n x b) in f64: m x b.
    pub(crate) fn times_v_f64(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let t = self.along_rows(transposed(v).as_ref(), true);
        let mut t = transposed(t.as_ref());
        t *= faer::Scale(1.0 / f64::from(self.scale));
        t
    }

    /// s E X for X^T (b x n): b x m.
    pub(crate) fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        self.along_rows(x, self.in_f64)
    }

    /// s E^T U for U^T (b x m): b x n.
    pub(crate) fn transposed_times(&self, mut u: Mat<f64>) -> Mat<f64> {
        u *= faer::Scale(f64::from(self.scale));
        self.along_columns(u.as_ref(), self.in_f64)
    }

    /// E^T U for U (m x b) in f64: n x b.
    pub(crate) fn transposed_times_f64(&self, u: MatRef<'_, f64>) -> Mat<f64> {
        let w = self.along_columns(transposed(u).as_ref(), true);
        transposed(w.as_ref())
    }

    /// X E for rows X (b x m, row-major), unscaled: b x n.
    pub(crate) fn outputs(&self, rows: &[f32]) -> Mat<f64> {
        let there = self.there.as_ref().and_then(|e| {
            let number = |i: usize, j: usize| f64::from(rows[i * self.m() + j]);
            let x = Mat::from_fn(rows.len() / self.m(), self.m(), number);
            e.times(x.as_ref(), self.in_f64)
        });
        there.unwrap_or_else(|| self.by_columns.times_rows(rows, self.in_f64))
    }

    /// X^T E for X^T (b x m): b x n.
    fn along_columns(&self, x: MatRef<'_, f64>, in_f64: bool) -> Mat<f64> {
        let there = self.there.as_ref().and_then(|e| e.times(x, in_f64));
        there.unwrap_or_else(|| self.by_columns.times_in(x, in_f64))
    }

    /// s Y^T E^T for Y^T (b x n): b x m.
    fn along_rows(&self, y: MatRef<'_, f64>, in_f64: bool) -> Mat<f64> {
        let there = self.there.as_ref().and_then(|e| {
            let scaled = y * faer::Scale(f64::from(self.scale));
            e.transposed_times(scaled.as_ref(), in_f64)
        });
        there.unwrap_or_else(|| self.by_rows().times_in(y, in_f64))
    }

    fn by_rows(&self) -> Operand<'_> {
        let made = || scaled_transpose(self.compute, self.matrix, self.scale);
        let rows = ColumnMajor::new(self.by_rows.get_or_init(made), self.n());
        self.compute.operand(rows)
    }
}

fn power_of_two(values: &[f32]) -> f32 {
    // Magnitudes are compared by their bits, which grow with |E| and of which many are compared at
    // a time.
    let bits = |e: &f32| (e.to_bits() & 0x7fff_ffff).cast_signed();
    let largest = values.iter().map(bits).fold(0, i32::max);
    let largest = f32::from_bits(largest.cast_unsigned());
    let exponent = if largest > 0.0 {
        -largest.log2().floor()
    } else {
        0.0
    };
    exponent.clamp(-120.0, 120.0).exp2()
}
