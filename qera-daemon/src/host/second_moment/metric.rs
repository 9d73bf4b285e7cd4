//! S: what a method solves with in the place of R.
//!
//! Every method is the projection C = E V V^T with V the top eigenvectors of G = E^T S E
//! (docs/design/mathematics.md, "The projection form"). Methods differ in S alone: R shrunk toward
//! its diagonal (QERA-exact), diag(R) (QERA-approx), the squared mean of |x| (LQER), the identity
//! (ZeroQuant-V2). S is scaled by its largest diagonal element.

use faer::Mat;

use crate::host::dense::product;
use crate::host::second_moment::channels::diagonal_scale;
use crate::host::second_moment::prepared::PreparedR;

/// S, up to a positive factor.
#[derive(Debug)]
pub(crate) enum Metric<'a> {
    /// (1 - a) R + a diag(R).
    Shrunk {
        /// R.
        r: &'a PreparedR<'a>,
        /// The shrinkage a.
        shrinkage: f64,
    },
    /// A diagonal; all ones is the identity.
    Diagonal {
        /// The diagonal / scale, its largest element 1.
        values: Vec<f64>,
        /// The largest element.
        scale: f64,
    },
}

impl Metric<'_> {
    /// A diagonal, scaled.
    pub(crate) fn of_diagonal(mut diagonal: Vec<f64>) -> Self {
        let scale = diagonal_scale(&diagonal);
        diagonal.iter_mut().for_each(|d| *d /= scale);
        Self::Diagonal {
            values: diagonal,
            scale,
        }
    }

    pub(crate) fn diagonal(&self) -> &[f64] {
        match self {
            Self::Shrunk { r, .. } => &r.diagonal,
            Self::Diagonal { values, .. } => values,
        }
    }

    pub(crate) const fn scale(&self) -> f64 {
        match self {
            Self::Shrunk { r, .. } => r.scale,
            Self::Diagonal { scale, .. } => *scale,
        }
    }

    /// S T for T^T (b x m), f32 products with R: b x m.
    pub(crate) fn apply_f32(&self, t: Mat<f64>) -> Mat<f64> {
        match self {
            Self::Shrunk { r, shrinkage } if *shrinkage < 1.0 => {
                blend(r.times(t.as_ref()), *shrinkage, &r.diagonal, &t)
            }
            _ => scaled(t, self.diagonal()),
        }
    }

    /// T^T S T in true units, given T (m x b) and R T.
    pub(crate) fn rayleigh(&self, t: &Mat<f64>, rt: &Mat<f64>) -> Mat<f64> {
        let diagonal = self.diagonal();
        let scale = self.scale();
        let dt = Mat::from_fn(t.nrows(), t.ncols(), |i, j| scale * diagonal[i] * t[(i, j)]);
        let on_diagonal = product(t.transpose(), dt.as_ref());
        match self {
            Self::Diagonal { .. } => on_diagonal,
            Self::Shrunk { shrinkage, .. } => {
                let full = product(t.transpose(), rt.as_ref());
                full * faer::Scale(1.0 - shrinkage) + on_diagonal * faer::Scale(*shrinkage)
            }
        }
    }

    /// S T, f64 products; T is m x b.
    pub(crate) fn apply_f64(&self, t: &Mat<f64>) -> Mat<f64> {
        let diagonal = self.diagonal();
        let on_diagonal =
            |a: f64| Mat::from_fn(t.nrows(), t.ncols(), |i, j| a * diagonal[i] * t[(i, j)]);
        match self {
            Self::Diagonal { .. } => on_diagonal(1.0),
            Self::Shrunk { r, shrinkage } => {
                let share = (1.0 - shrinkage) / r.scale;
                on_diagonal(*shrinkage) + r.times_f64(t.as_ref()) * faer::Scale(share)
            }
        }
    }
}

/// Each column (a channel) times its element of the diagonal.
pub(crate) fn scaled(mut t: Mat<f64>, diagonal: &[f64]) -> Mat<f64> {
    for (column, d) in t.col_iter_mut().zip(diagonal) {
        column.iter_mut().for_each(|x| *x *= d);
    }
    t
}

/// (1 - a) X + a diag(d) T, channels being columns.
pub(crate) fn blend(mut x: Mat<f64>, a: f64, d: &[f64], t: &Mat<f64>) -> Mat<f64> {
    let (p, q) = (1.0 - a, a);
    for ((to, from), d) in x.col_iter_mut().zip(t.col_iter()).zip(d) {
        for (to, from) in to.iter_mut().zip(from.iter()) {
            *to = p * *to + q * d * from;
        }
    }
    x
}
