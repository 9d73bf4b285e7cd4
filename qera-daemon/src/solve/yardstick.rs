//! What a correction is worth: f = tr(R P P^T), P = E - A B, under the true R whatever the method solved with.
//!
//! By traces where f is a visible part of tr(R E E^T). R carries the rounding of f32 products (about 1e-7 of
//! its diagonal), so that f below 1e-4 of that trace cannot be read off it to 0.1 %: it may even come out
//! negative. Then the rows themselves are asked, those that the window holds, in f64. A layer is measured in
//! one way before and after rounding, so that the two can be compared.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use crate::calibrate::Window;

use super::factors::Factors;
use super::metric::ErrorMatrix;
use super::packed_r::{PackedR, narrow};

/// Where f is below this share of tr(R E E^T), the rows are asked.
const BY_ROWS_BELOW: f64 = 1e-4;
/// Where no rows are held, P is formed below this share.
const BY_RESIDUAL_BELOW: f64 = 1e-6;
/// Rows, and columns of E, in f64 at a time.
const ROWS: usize = 512;
const COLUMNS: usize = 256;

/// Measures the corrections of one layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Yardstick<'a> {
    /// `None` where R is not kept: then the rows are asked for everything.
    pub(super) r: Option<PackedR<'a>>,
    pub(super) window: &'a Window,
    pub(super) error: ErrorMatrix<'a>,
    /// tr(R E E^T).
    pub(super) error_without: f64,
    by_rows: bool,
}

impl<'a> Yardstick<'a> {
    /// The way to measure this layer, and f of its unrounded factors, which decides the way.
    pub(super) fn choose(
        r: Option<PackedR<'a>>,
        window: &'a Window,
        error: ErrorMatrix<'a>,
        error_without: f64,
        factors: &Factors,
    ) -> (Self, f64) {
        let mut yardstick = Self {
            r,
            window,
            error,
            error_without,
            by_rows: r.is_none(),
        };
        let f = yardstick.error(factors);
        // Statistics without rows (from elsewhere) are taken at their word, down to what differences of traces show.
        let without_rows = window.all_rows().all(<[f32]>::is_empty);
        let least = if without_rows {
            BY_RESIDUAL_BELOW
        } else {
            BY_ROWS_BELOW
        };
        if yardstick.by_rows || f >= least * error_without || !f.is_finite() {
            return (yardstick, f);
        }
        yardstick.by_rows = true;
        (yardstick, yardstick.error(factors))
    }

    /// f of these factors: tr(R E E^T) - 2 <R A, E B^T> + <A^T R A, B B^T>, in f64, 2 m^2 k + 2 m n k flops; or
    /// from the rows.
    pub(super) fn error(&self, factors: &Factors) -> f64 {
        let r = match self.r {
            Some(r) if !self.by_rows => r,
            _ => {
                return on_rows(self.window, self.error, Some(factors))
                    .unwrap_or_else(|| self.on_residual(factors));
            }
        };
        let ra = r.times(factors.a.as_ref());
        let eb = self.error.times(factors.b.as_ref());
        self.error_without - 2.0 * inner(&ra, &eb)
            + inner(
                &(factors.a.transpose() * &ra),
                &(factors.b.transpose() * &factors.b),
            )
    }

    /// tr(R P P^T) from P itself: statistics without rows.
    fn on_residual(&self, factors: &Factors) -> f64 {
        let m = self.error.m;
        let mut p = Vec::with_capacity(self.error.values.len());
        for (group, values) in self.error.values.chunks(COLUMNS * m).enumerate() {
            let (first, count) = (group * COLUMNS, values.len() / m);
            let c = &factors.a * factors.b.subrows(first, count).transpose();
            let c = (0..count).flat_map(|j| c.col(j).iter().copied().collect::<Vec<_>>());
            p.extend(values.iter().zip(c).map(|(e, c)| narrow(f64::from(*e) - c)));
        }
        self.r.map_or(0.0, |r| r.trace_with(&p))
    }
}

/// tr(R M M^T): the mean of ||x M||^2 over the rows seen, or over those held where R is not kept.
pub(super) fn power(r: Option<PackedR<'_>>, window: &Window, matrix: ErrorMatrix<'_>) -> f64 {
    r.map_or_else(
        || on_rows(window, matrix, None).unwrap_or_default(),
        |r| r.trace_with(matrix.values),
    )
}

/// Mean of ||x (E - A B)||^2 over the rows held; `None` when none are.
fn on_rows(window: &Window, error: ErrorMatrix<'_>, factors: Option<&Factors>) -> Option<f64> {
    let m = error.m;
    let (mut sum, mut count) = (0.0, 0);
    for rows in window.all_rows().flat_map(|rows| rows.chunks(ROWS * m)) {
        let wide: Vec<f64> = rows.iter().map(|x| f64::from(*x)).collect();
        let x = MatRef::from_row_major_slice(&wide, rows.len() / m, m);
        let xa = factors.map(|factors| x * &factors.a);
        for (group, values) in error.values.chunks(COLUMNS * m).enumerate() {
            let columns = values.len() / m;
            let wide: Vec<f64> = values.iter().map(|e| f64::from(*e)).collect();
            let e = MatRef::from_column_major_slice(&wide, m, columns);
            let mut y = Mat::zeros(x.nrows(), columns);
            matmul(y.as_mut(), Accum::Replace, x, e, 1.0, Par::Seq);
            if let (Some(factors), Some(xa)) = (factors, &xa) {
                let b = factors.b.subrows(group * COLUMNS, columns).transpose();
                matmul(y.as_mut(), Accum::Add, xa.as_ref(), b, -1.0, Par::Seq);
            }
            sum += y.squared_norm_l2();
        }
        count += x.nrows();
    }
    (count > 0).then(|| sum / count as f64)
}

fn inner(x: &Mat<f64>, y: &Mat<f64>) -> f64 {
    let column = |j| {
        x.col(j)
            .iter()
            .zip(y.col(j).iter())
            .map(|(x, y)| x * y)
            .sum::<f64>()
    };
    (0..x.ncols()).map(column).sum()
}
