//! The low-rank term as two factors: balanced, rounded to what is written, and measured.

use faer::{Mat, MatRef};
use qera_core::dtype::FloatDtype;

use super::metric::ErrorMatrix;
use super::packed_r::narrow;
use super::yardstick::Yardstick;

/// C = A B with A = E V g and B = g^-1 V^T, g balancing each pair of columns to equal norms, so that
/// rounding and the range of f16 are shared evenly.
#[derive(Debug, Clone)]
pub struct Factors {
    /// m x k.
    pub a: Mat<f64>,
    /// V g^-1: n x k; B is its transpose.
    pub b: Mat<f64>,
}

/// Factors as an engine will read them.
#[derive(Debug, Clone)]
pub struct Rounded {
    /// Type of the elements.
    pub dtype: FloatDtype,
    /// k x m by rows: PEFT's lora_A.
    pub lora_a: Vec<f32>,
    /// n x k by rows: PEFT's lora_B.
    pub lora_b: Vec<f32>,
    /// f of the rounded factors; infinite when one of them overflowed.
    pub error: f64,
}

impl Factors {
    /// The balanced factors of E V V^T.
    pub(super) fn project(error: ErrorMatrix<'_>, v: MatRef<'_, f64>) -> Self {
        let mut a = error.times(v);
        let mut b = v.to_owned();
        for j in 0..v.ncols() {
            let g = a.col(j).norm_l2().sqrt();
            // A direction that E does not reach contributes nothing: exact zeros.
            let (to_a, to_b) = if g > 0.0 { (1.0 / g, g) } else { (0.0, 0.0) };
            a.col_mut(j).iter_mut().for_each(|x| *x *= to_a);
            b.col_mut(j).iter_mut().for_each(|x| *x *= to_b);
        }
        Self { a, b }
    }

    /// Rounds to `dtype` and measures f again.
    pub(super) fn round(&self, dtype: FloatDtype, yardstick: &Yardstick<'_>) -> Rounded {
        let rounded = |x: &f64| dtype.round(narrow(*x));
        let lora_a = self
            .a
            .col_iter()
            .flat_map(|c| c.iter().map(rounded).collect::<Vec<_>>());
        let lora_b = self
            .b
            .row_iter()
            .flat_map(|r| r.iter().map(rounded).collect::<Vec<_>>());
        let mut result = Rounded {
            dtype,
            lora_a: lora_a.collect(),
            lora_b: lora_b.collect(),
            error: 0.0,
        };
        result.error = result.measure(yardstick);
        result
    }
}

impl Rounded {
    /// f of what an engine computing in bf16 makes of these factors.
    pub(super) fn error_in_bf16(&self, yardstick: &Yardstick<'_>) -> f64 {
        let dtype = FloatDtype::Bf16;
        let cast = |values: &[f32]| values.iter().map(|x| dtype.round(*x)).collect();
        let seen = Self {
            dtype,
            lora_a: cast(&self.lora_a),
            lora_b: cast(&self.lora_b),
            error: 0.0,
        };
        seen.measure(yardstick)
    }

    fn measure(&self, yardstick: &Yardstick<'_>) -> f64 {
        if !self
            .lora_a
            .iter()
            .chain(&self.lora_b)
            .all(|x| x.is_finite())
        {
            return f64::INFINITY;
        }
        let ErrorMatrix { m, n, .. } = yardstick.error;
        let k = self.lora_b.len() / n;
        let a = Mat::from_fn(m, k, |i, j| f64::from(self.lora_a[j * m + i]));
        let b = Mat::from_fn(n, k, |i, j| f64::from(self.lora_b[i * k + j]));
        yardstick.error(&Factors { a, b })
    }
}
