//! A layer's sketch in the place of R, as searches for the corrections of folds multiply by it.
//!
//! With T = s E V and R / scale, T^T (R / scale) T is (s^2 / scale) V^T S^T S V: what belongs to R
//! alone, R T, is not there, and what is asked of it, E^T R E V, is S^T (S V).

use faer::{Mat, MatRef};

use crate::host::dense::product;
use crate::host::output_sketch::OutputSketch;
use crate::host::subspace::error_operand::ErrorOperand;

/// (s^2 / scale)^1/2 S, and the diagonal of R / scale.
#[derive(Debug)]
pub(crate) struct ScaledSketch {
    /// kept x n.
    rows: Mat<f64>,
    /// diag(R) / scale.
    pub(crate) diagonal: Vec<f64>,
}

impl ScaledSketch {
    /// In the scaling of this E, and of R by its largest diagonal element.
    pub(crate) fn new(
        sketch: &OutputSketch,
        error: &ErrorOperand<'_>,
        mut diagonal: Vec<f64>,
        scale: f64,
    ) -> Self {
        let unit = (error.scale_squared() / scale).sqrt();
        diagonal.iter_mut().for_each(|d| *d /= scale);
        Self {
            rows: sketch.matrix() * faer::Scale(unit),
            diagonal,
        }
    }

    /// Rows of S.
    pub(crate) fn kept(&self) -> usize {
        self.rows.nrows()
    }

    /// (S V)^T for V (n x b): b x kept.
    pub(crate) fn along(&self, v: MatRef<'_, f64>) -> Mat<f64> {
        product(v.transpose(), self.rows.transpose())
    }

    /// (S^T S V)^T, given (S V)^T: b x n.
    pub(crate) fn back(&self, along: &Mat<f64>) -> Mat<f64> {
        product(along.as_ref(), self.rows.as_ref())
    }
}
