//! The low-rank term as two factors: balanced, rounded to what is written, and measured.

use faer::{Mat, MatRef};
use qera_core::dtype::FloatDtype;

use super::metric::ErrorMatrix;
use super::packed_r::{PackedR, narrow};

/// Where f is below this share of tr G, it is evaluated from P itself: differences of large traces
/// would lose its digits (design 3.3).
const DIRECT_BELOW: f64 = 1e-6;
/// Columns of C made at a time.
const COLUMNS: usize = 512;

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

    /// f = tr(R P P^T) of these factors, P = E - A B, given tr(R E E^T).
    ///
    /// tr(R E E^T) - 2 <R A, E B^T> + <A^T R A, B B^T>, in f64: 2 m^2 k + 2 m n k flops; from P where
    /// the result is small.
    pub(super) fn error(&self, r: PackedR<'_>, error: ErrorMatrix<'_>, error_without: f64) -> f64 {
        let ra = r.times(self.a.as_ref());
        let eb = error.times(self.b.as_ref());
        let inner = |x: &Mat<f64>, y: &Mat<f64>| -> f64 {
            (0..x.ncols())
                .map(|j| {
                    x.col(j)
                        .iter()
                        .zip(y.col(j).iter())
                        .map(|(x, y)| x * y)
                        .sum::<f64>()
                })
                .sum()
        };
        let f = error_without - 2.0 * inner(&ra, &eb)
            + inner(&(self.a.transpose() * &ra), &(self.b.transpose() * &self.b));
        if f >= DIRECT_BELOW * error_without || !f.is_finite() {
            return f;
        }
        let mut p = Vec::with_capacity(error.values.len());
        let columns = COLUMNS * error.m;
        for (group, values) in error.values.chunks(columns).enumerate() {
            let (first, count) = (group * COLUMNS, values.len() / error.m);
            let c = &self.a * self.b.subrows(first, count).transpose();
            p.extend(
                (0..count)
                    .flat_map(|j| c.col(j).iter().copied().collect::<Vec<_>>())
                    .zip(values)
                    .map(|(c, e)| narrow(f64::from(*e) - c)),
            );
        }
        r.trace_with(&p)
    }

    /// Rounds to `dtype` and measures f again.
    pub(super) fn round(
        &self,
        dtype: FloatDtype,
        r: PackedR<'_>,
        error: ErrorMatrix<'_>,
        error_without: f64,
    ) -> Rounded {
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
        result.error = result.measure(r, error, error_without);
        result
    }
}

impl Rounded {
    /// f of what an engine computing in bf16 makes of these factors.
    pub(super) fn error_in_bf16(
        &self,
        r: PackedR<'_>,
        error: ErrorMatrix<'_>,
        error_without: f64,
    ) -> f64 {
        let cast = |values: &[f32]| values.iter().map(|x| FloatDtype::Bf16.round(*x)).collect();
        let dtype = FloatDtype::Bf16;
        let seen = Self {
            dtype,
            lora_a: cast(&self.lora_a),
            lora_b: cast(&self.lora_b),
            error: 0.0,
        };
        seen.measure(r, error, error_without)
    }

    fn measure(&self, r: PackedR<'_>, error: ErrorMatrix<'_>, error_without: f64) -> f64 {
        if !self
            .lora_a
            .iter()
            .chain(&self.lora_b)
            .all(|x| x.is_finite())
        {
            return f64::INFINITY;
        }
        let k = self.lora_b.len() / error.n;
        let wide = |values: &[f32], rows, by_rows: bool| {
            Mat::from_fn(rows, k, |i, j| {
                f64::from(values[if by_rows { i * k + j } else { j * rows + i }])
            })
        };
        let factors = Factors {
            a: wide(&self.lora_a, error.m, false),
            b: wide(&self.lora_b, error.n, true),
        };
        factors.error(r, error, error_without)
    }
}
