//! E = W - W~ of one layer, ready for its products with a few vectors.
//!
//! E is kept twice in f32 while a layer is solved, by columns as it came and by rows, so that both
//! of its products read it as it lies in memory.

use faer::{Mat, MatRef};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::operand::Operand;
use crate::host::transpose::{scaled_transpose, transposed};

/// E, m x n, and s E by rows.
#[derive(Debug)]
pub(crate) struct ErrorOperand<'a> {
    /// The matrix E as it was given.
    pub(crate) matrix: ColumnMajor<'a>,
    by_columns: Operand<'a>,
    by_rows: Operand<'a>,
    /// s, a power of two that brings the largest |E_ij| near 1.
    scale: f32,
    /// Whether every product is taken in f64.
    in_f64: bool,
}

impl<'a> ErrorOperand<'a> {
    /// Makes E ready: it is transposed once. `in_f64` says that f32 products are not enough
    /// (`PreparedR::in_f64`).
    pub(crate) fn new(compute: Compute<'a>, error: ColumnMajor<'a>, in_f64: bool) -> Self {
        let scale = power_of_two(error.values);
        let rows = scaled_transpose(compute, error, scale);
        Self {
            matrix: error,
            by_columns: compute.lasting_operand(error),
            by_rows: compute.own_operand(rows, error.columns()),
            scale,
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
        let t = self.by_rows.times_f64(transposed(v).as_ref());
        let mut t = transposed(t.as_ref());
        t *= faer::Scale(1.0 / f64::from(self.scale));
        t
    }

    /// s E X for X^T (b x n): b x m.
    pub(crate) fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        self.product(&self.by_rows, x)
    }

    /// s E^T U for U^T (b x m): b x n.
    pub(crate) fn transposed_times(&self, mut u: Mat<f64>) -> Mat<f64> {
        u *= faer::Scale(f64::from(self.scale));
        self.product(&self.by_columns, u.as_ref())
    }

    /// E^T U for U (m x b) in f64: n x b.
    pub(crate) fn transposed_times_f64(&self, u: MatRef<'_, f64>) -> Mat<f64> {
        let w = self.by_columns.times_f64(transposed(u).as_ref());
        transposed(w.as_ref())
    }

    fn product(&self, operand: &Operand<'_>, x: MatRef<'_, f64>) -> Mat<f64> {
        if self.in_f64 {
            operand.times_f64(x)
        } else {
            operand.times(x)
        }
    }

    /// X E for rows X (b x m), unscaled: b x n.
    pub(crate) fn outputs(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        self.product(&self.by_columns, x)
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
