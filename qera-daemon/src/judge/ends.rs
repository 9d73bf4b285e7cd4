//! A small matrix under R and under R's diagonal. The matrix under any shrinkage is a blend of the
//! two, so that these ends serve all candidates.

use faer::Mat;

/// A small matrix under both ends of the blend R_a = (1 - a) R + a diag(R).
pub(crate) struct Ends {
    /// The matrix under R; `None` where every candidate has a = 1.
    pub(crate) full: Option<Mat<f64>>,
    /// The matrix under R's diagonal, or under that of a diagonal method; `None` where every
    /// candidate has a = 0.
    pub(crate) diagonal: Option<Mat<f64>>,
}

impl Ends {
    /// The matrix under the shrinkage a.
    pub(crate) fn blend(&self, a: f64) -> Mat<f64> {
        match (&self.full, &self.diagonal) {
            (Some(full), Some(diagonal)) => full * faer::Scale(1.0 - a) + diagonal * faer::Scale(a),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => Mat::new(),
        }
    }

    /// Joins [T U]^T S [T U] from its parts: `self` is T^T S T, `beside` is T^T S U, `own` is U^T S
    /// U.
    pub(crate) fn bordered(&self, beside: &Self, own: &Self) -> Self {
        let part = |of: fn(&Self) -> &Option<Mat<f64>>| {
            let (first, beside, own) =
                (of(self).as_ref()?, of(beside).as_ref()?, of(own).as_ref()?);
            let p = first.nrows();
            let both = p + own.nrows();
            Some(Mat::from_fn(both, both, |i, j| match (i < p, j < p) {
                (true, true) => first[(i, j)],
                (true, false) => beside[(i, j - p)],
                (false, true) => beside[(j, i - p)],
                (false, false) => own[(i - p, j - p)],
            }))
        };
        Self {
            full: part(|ends| &ends.full),
            diagonal: part(|ends| &ends.diagonal),
        }
    }
}
