//! What stands in the place of R, and the operator G = E^T S E that it makes.
//!
//! Every method is the projection C = E V V^T with V the top eigenvectors of G (design 3.1); they differ
//! in S alone: R shrunk toward its diagonal (QERA-exact), diag(R) (QERA-approx), the squared mean of |x|
//! (LQER), the identity (ZeroQuant-V2).
//!
//! E and S are scaled by powers of two and by the largest diagonal element, so that f32 products neither
//! overflow nor vanish; eigenvectors do not notice.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use crate::checkpoint::Layer;

use super::packed_r::{PackedR, narrow};

/// Columns of E converted to f64 at a time.
const COLUMNS: usize = 512;

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

    /// E V in f64: 2 m n b flops.
    pub(super) fn times(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let mut product = Mat::zeros(self.m, v.ncols());
        self.in_panels(|first, panel| {
            matmul(
                product.as_mut(),
                Accum::Add,
                panel,
                v.subrows(first, panel.ncols()),
                1.0,
                Par::Seq,
            );
        });
        product
    }

    /// E^T U in f64: 2 m n b flops.
    pub(super) fn transposed_times(&self, u: MatRef<'_, f64>) -> Mat<f64> {
        let mut product = Mat::zeros(self.n, u.ncols());
        self.in_panels(|first, panel| {
            let rows = product.as_mut().subrows_mut(first, panel.ncols());
            matmul(rows, Accum::Replace, panel.transpose(), u, 1.0, Par::Seq);
        });
        product
    }

    fn in_panels(&self, mut with: impl FnMut(usize, MatRef<'_, f64>)) {
        let mut wide = vec![0.0; COLUMNS.min(self.n) * self.m];
        for (index, panel) in self.values.chunks(COLUMNS * self.m).enumerate() {
            wide.iter_mut()
                .zip(panel)
                .for_each(|(to, from)| *to = f64::from(*from));
            let columns = panel.len() / self.m;
            with(
                index * COLUMNS,
                MatRef::from_column_major_slice(&wide[..panel.len()], self.m, columns),
            );
        }
    }
}

/// S, up to a positive factor.
#[derive(Debug)]
pub(super) enum Metric<'a> {
    /// (1 - a) R + a diag(R).
    Shrunk {
        /// R / scale, m x m, both triangles.
        full: &'a [f32],
        /// diag(R) / scale.
        diagonal: Vec<f64>,
        /// a.
        shrinkage: f64,
        /// The same R in f64 and its scale, where products in f64 may be asked for.
        exact: Option<(PackedR<'a>, f64)>,
    },
    /// A diagonal; all ones is the identity.
    Diagonal {
        /// The diagonal / scale, its largest element 1.
        values: Vec<f64>,
        /// The largest element.
        scale: f64,
    },
}

/// The largest element, by which a diagonal is scaled for f32; 1 when all are zero.
pub(super) fn diagonal_scale(diagonal: &[f64]) -> f64 {
    let largest = diagonal.iter().fold(0.0_f64, |max, d| max.max(*d));
    if largest > 0.0 { largest } else { 1.0 }
}

impl Metric<'_> {
    /// A diagonal, scaled.
    pub(super) fn of_diagonal(mut diagonal: Vec<f64>) -> Self {
        let scale = diagonal_scale(&diagonal);
        diagonal.iter_mut().for_each(|d| *d /= scale);
        Self::Diagonal {
            values: diagonal,
            scale,
        }
    }

    fn diagonal(&self) -> &[f64] {
        match self {
            Self::Shrunk { diagonal, .. }
            | Self::Diagonal {
                values: diagonal, ..
            } => diagonal,
        }
    }

    /// S T, f32 products.
    fn apply_f32(&self, t: Mat<f32>) -> Mat<f32> {
        let (full, a) = match self {
            Self::Shrunk {
                full, shrinkage, ..
            } => (*full, *shrinkage),
            Self::Diagonal { .. } => (&[][..], 1.0),
        };
        let diagonal = self.diagonal();
        let mut product = Mat::from_fn(t.nrows(), t.ncols(), |i, j| {
            narrow(a * diagonal[i]) * t[(i, j)]
        });
        if a < 1.0 {
            let m = t.nrows();
            let full = MatRef::from_column_major_slice(full, m, m);
            matmul(
                product.as_mut(),
                Accum::Add,
                full,
                t.as_ref(),
                narrow(1.0 - a),
                Par::Seq,
            );
        }
        product
    }

    /// S T, f64 products; falls back to f32 values of R where the f64 ones were not lent.
    fn apply_f64(&self, t: &Mat<f64>) -> Mat<f64> {
        let (m, b) = (t.nrows(), t.ncols());
        let diagonal = self.diagonal();
        let scaled = |a: f64| Mat::from_fn(m, b, |i, j| a * diagonal[i] * t[(i, j)]);
        match self {
            Self::Diagonal { .. } => scaled(1.0),
            Self::Shrunk {
                shrinkage,
                exact: Some((r, scale)),
                ..
            } => {
                let rt = r.times(t.as_ref());
                let share = (1.0 - shrinkage) / scale;
                scaled(*shrinkage) + Mat::from_fn(m, b, |i, j| share * rt[(i, j)])
            }
            Self::Shrunk { .. } => {
                let narrowed = self.apply_f32(Mat::from_fn(m, b, |i, j| narrow(t[(i, j)])));
                Mat::from_fn(m, b, |i, j| f64::from(narrowed[(i, j)]))
            }
        }
    }
}

/// V -> G V, G = E^T S E (n x n), never formed: 4 m n + 2 m^2 flops a column.
#[derive(Debug)]
pub(super) struct ErrorOperator<'a> {
    pub(super) error: ErrorMatrix<'a>,
    pub(super) metric: &'a Metric<'a>,
    /// Power of two that brings the largest |E_ij| near 1.
    error_scale: f32,
}

impl<'a> ErrorOperator<'a> {
    pub(super) fn new(error: ErrorMatrix<'a>, metric: &'a Metric<'a>) -> Self {
        let largest = error.values.iter().fold(0.0_f32, |max, e| max.max(e.abs()));
        let exponent = if largest > 0.0 {
            -largest.log2().floor()
        } else {
            0.0
        };
        Self {
            error,
            metric,
            error_scale: exponent.clamp(-120.0, 120.0).exp2(),
        }
    }

    pub(super) const fn n(&self) -> usize {
        self.error.n
    }

    /// f32 products; the values are scaled, the subspace is not affected.
    pub(super) fn apply_f32(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let (m, n, b) = (self.error.m, self.error.n, v.ncols());
        let narrowed = Mat::from_fn(n, b, |i, j| narrow(v[(i, j)]));
        let error = self.error.as_mat();
        let mut t = Mat::<f32>::zeros(m, b);
        matmul(
            t.as_mut(),
            Accum::Replace,
            error,
            narrowed.as_ref(),
            self.error_scale,
            Par::Seq,
        );
        let u = self.metric.apply_f32(t);
        let mut w = Mat::<f32>::zeros(n, b);
        matmul(
            w.as_mut(),
            Accum::Replace,
            error.transpose(),
            u.as_ref(),
            self.error_scale,
            Par::Seq,
        );
        Mat::from_fn(n, b, |i, j| f64::from(w[(i, j)]))
    }

    /// f64 products, in the same scaling.
    pub(super) fn apply_f64(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        let s = f64::from(self.error_scale);
        let t = self.error.times(v) * faer::Scale(s * s);
        self.error
            .transposed_times(self.metric.apply_f64(&t).as_ref())
    }

    /// What an eigenvalue in this scaling is to be multiplied by.
    pub(super) fn unit(&self) -> f64 {
        let scale = match self.metric {
            Metric::Shrunk {
                exact: Some((_, scale)),
                ..
            }
            | Metric::Diagonal { scale, .. } => *scale,
            Metric::Shrunk { exact: None, .. } => 1.0,
        };
        scale / f64::from(self.error_scale).powi(2)
    }

    /// tr G in the same scaling, given tr(R E E^T): the scale of the stop test.
    pub(super) fn trace(&self, error_without: f64) -> f64 {
        let diagonal = self.metric.diagonal();
        let s = f64::from(self.error_scale);
        let of_column = |column: &[f32]| -> f64 {
            column
                .iter()
                .zip(diagonal)
                .map(|(e, d)| (f64::from(*e) * s).powi(2) * d)
                .sum()
        };
        let on_diagonal: f64 = self.error.values.chunks(self.error.m).map(of_column).sum();
        match self.metric {
            Metric::Shrunk {
                shrinkage,
                exact: Some((_, scale)),
                ..
            } => (1.0 - shrinkage) * s * s * error_without / scale + shrinkage * on_diagonal,
            _ => on_diagonal,
        }
    }
}
