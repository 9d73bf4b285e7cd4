//! Small matrices under R and under its diagonal, between which those of all candidates lie.

use faer::Mat;

/// A small matrix under each end between which candidates lie.
pub(crate) struct Ends {
    /// Under R; `None` where no candidate has a part of it.
    pub(crate) full: Option<Mat<f64>>,
    /// Under its diagonal, or that of a method; `None` where no candidate has a part of it.
    pub(crate) diagonal: Option<Mat<f64>>,
}

impl Ends {
    /// Under the shrinkage a.
    pub(crate) fn blend(&self, a: f64) -> Mat<f64> {
        match (&self.full, &self.diagonal) {
            (Some(full), Some(diagonal)) => full * faer::Scale(1.0 - a) + diagonal * faer::Scale(a),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => Mat::new(),
        }
    }

    /// This between T and itself, with that between T and U and that between U and itself: between
    /// [T U] and itself.
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
