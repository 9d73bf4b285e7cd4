//! R in packed f64, and the exact quantities that are measured with it: R X, tr(R P P^T).
//!
//! R is never expanded to a full f64 matrix: panels of columns are, one at a time.

use faer::linalg::matmul::matmul;
use faer::prelude::ReborrowMut;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use qera_core::packed::packed_offset;

/// Columns of R, or rows of P P^T, held in f64 at a time.
const PANEL: usize = 128;
/// Columns of P converted to f64 at a time.
const COLUMNS: usize = 512;

/// A packed symmetric matrix, m x m.
#[derive(Debug, Clone, Copy)]
pub(super) struct PackedR<'a> {
    values: &'a [f64],
    m: usize,
}

impl<'a> PackedR<'a> {
    pub(super) const fn new(values: &'a [f64], m: usize) -> Self {
        Self { values, m }
    }

    /// Row i from its diagonal element on.
    fn row(&self, i: usize) -> &'a [f64] {
        let start = packed_offset(self.m, i);
        &self.values[start..start + self.m - i]
    }

    /// R / `scale` as a full f32 matrix, by columns.
    pub(super) fn to_f32(self, scale: f64) -> Vec<f32> {
        let m = self.m;
        let mut full = vec![0.0_f32; m * m];
        for i in 0..m {
            for (j, value) in self.row(i).iter().enumerate() {
                full[i * m + i + j] = narrow(value / scale);
            }
        }
        mirror_lower(&mut full, m);
        full
    }

    /// R X in f64, X being m x b: 2 m^2 b flops.
    pub(super) fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let m = self.m;
        let mut product = Mat::zeros(m, x.ncols());
        let mut panel = vec![0.0; m * PANEL];
        for first in (0..m).step_by(PANEL) {
            let width = PANEL.min(m - first);
            for (c, column) in panel.chunks_mut(m).take(width).enumerate() {
                let j = first + c;
                column[j..].copy_from_slice(self.row(j));
                for (i, value) in column[..j].iter_mut().enumerate() {
                    *value = self.values[packed_offset(m, i) + j - i];
                }
            }
            let panel = MatRef::from_column_major_slice(&panel[..m * width], m, width);
            let rows = product.as_mut().subrows_mut(first, width);
            matmul(rows, Accum::Replace, panel.transpose(), x, 1.0, Par::Seq);
        }
        product
    }

    /// tr(R P P^T) in f64 for P (m x n, by columns, f32): m^2 n flops.
    ///
    /// sum_ij R_ij (P P^T)_ij over the upper triangle, the off-diagonal part twice; P P^T is made
    /// [`PANEL`] rows at a time.
    pub(super) fn trace_with(&self, p: &[f32]) -> f64 {
        let m = self.m;
        let mut gram = vec![0.0_f64; PANEL * m];
        let mut columns = vec![0.0_f64; COLUMNS * m];
        let mut trace = 0.0;
        for first in (0..m).step_by(PANEL) {
            let (height, length) = (PANEL.min(m - first), m - first);
            let mut gram =
                MatMut::from_column_major_slice_mut(&mut gram[..height * length], length, height);
            gram.fill(0.0);
            for group in p.chunks(COLUMNS * m) {
                let count = group.len() / m;
                for (to, from) in columns.chunks_mut(length).zip(group.chunks(m)) {
                    to.iter_mut()
                        .zip(&from[first..])
                        .for_each(|(to, from)| *to = f64::from(*from));
                }
                let group =
                    MatRef::from_column_major_slice(&columns[..count * length], length, count);
                matmul(
                    gram.rb_mut(),
                    Accum::Add,
                    group,
                    group.subrows(0, height).transpose(),
                    1.0,
                    Par::Seq,
                );
            }
            for c in 0..height {
                let row = self.row(first + c);
                let products = (1..row.len())
                    .map(|j| row[j] * gram[(c + j, c)])
                    .sum::<f64>();
                trace += row[0] * gram[(c, c)] + 2.0 * products;
            }
        }
        // Rounding may leave -1e-17 where the truth is 0.
        trace.max(0.0)
    }
}

/// Copies the lower triangle (by columns) over the upper one.
pub(super) fn mirror_lower(full: &mut [f32], m: usize) {
    for j in 1..m {
        let (left, right) = full.split_at_mut(j * m);
        for (i, value) in right[..j].iter_mut().enumerate() {
            *value = left[i * m + j];
        }
    }
}

/// To f32, rounding to nearest.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the purpose"
)]
pub(super) const fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_and_traces_match_the_definition() {
        let (m, n) = (150, 7); // more than one panel
        let r =
            |i: usize, j: usize| 1.0 / (1.0 + i as f64 + j as f64) + f64::from(u8::from(i == j));
        let packed: Vec<f64> = (0..m).flat_map(|i| (i..m).map(move |j| r(i, j))).collect();
        let p: Vec<f32> = (0..m * n)
            .map(|i| narrow((i as f64 * 0.37).sin()))
            .collect();
        let packed_r = PackedR::new(&packed, m);
        let wide = Mat::from_fn(m, n, |i, j| f64::from(p[j * m + i]));
        let product = packed_r.times(wide.as_ref());
        let mut trace = 0.0;
        for j in 0..n {
            for i in 0..m {
                let expected: f64 = (0..m).map(|l| r(i, l) * wide[(l, j)]).sum();
                assert!((product[(i, j)] - expected).abs() < 1e-12);
                trace += wide[(i, j)] * expected;
            }
        }
        assert!((packed_r.trace_with(&p) / trace - 1.0).abs() < 1e-13);
        let full = packed_r.to_f32(2.0);
        assert!((f64::from(full[3 * m + 100]) - r(3, 100) / 2.0).abs() < 1e-9);
        assert!((full[3 * m + 100] - full[100 * m + 3]).abs() < f32::EPSILON * 0.1);
    }
}
