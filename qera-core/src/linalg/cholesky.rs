//! Cholesky's factor of a symmetric positive definite matrix, in place.
//!
//! **Derivation.** `A = L L^T` with `L` lower triangular gives, column by column, `L_jj^2 = A_jj -
//! sum_{k<j} L_jk^2` and `L_ij L_jj = A_ij - sum_{k<j} L_ik L_jk`. Column `j` takes what the
//! columns before it subtract, each time from its diagonal down: contiguous in memory. No pivoting:
//! a positive definite matrix needs none, and the order of the inputs has a meaning to the rounding
//! that uses the factor.
//!
//! **Cost.** `n^3 / 3` flops, one square root and one division a column.
//!
//! **Error bound.** `L L^T = A + dA` with `|dA| <= (n + 1) eps |L| |L|^T` for any such `A` (Higham,
//! *Accuracy and Stability of Numerical Algorithms*, theorem 10.3); a pivot that is not positive is
//! met when the smallest eigenvalue is below about `n eps` times the largest of the matrix scaled
//! to a unit diagonal (theorem 10.7).

use core::fmt;

use nalgebra::DMatrixViewMut;

use super::columns::add_scaled;
use super::lent::{ShapeMismatch, expect_matrix};

/// Why [`cholesky`] gave no factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CholeskyError {
    /// The matrix is not square.
    Shape(ShapeMismatch),
    /// A pivot is not a positive number: the matrix is not positive definite, or an element of its
    /// lower triangle is NaN or infinite.
    Pivot {
        /// Which one.
        index: usize,
        /// What is left of its diagonal element.
        value: f64,
    },
}

impl fmt::Display for CholeskyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(shape) => shape.fmt(f),
            Self::Pivot { index, value } => write!(
                f,
                "pivot {index} is {value:e}: the matrix is not positive definite"
            ),
        }
    }
}

impl core::error::Error for CholeskyError {}

impl From<ShapeMismatch> for CholeskyError {
    fn from(shape: ShapeMismatch) -> Self {
        Self::Shape(shape)
    }
}

/// Replaces the lower triangle of a symmetric positive definite matrix by its factor `L`, `A = L
/// L^T`.
///
/// # Shapes
/// `a` is n x n; only the lower triangle, diagonal included, is read and written.
///
/// # Errors
/// [`Shape`](CholeskyError::Shape) before anything is written. After
/// [`Pivot`](CholeskyError::Pivot) the columns before the pivot hold those of `L`.
///
/// # Numerics
/// Backward error of `(n + 1) eps |L| |L|^T`; the diagonal of `L` is positive.
///
/// # Determinism
/// Columns and what is subtracted from them come in one fixed order.
///
/// # References
/// Golub and Van Loan, *Matrix Computations*, algorithm 4.2.1.
///
/// # Example
/// ```
/// use nalgebra::DMatrixViewMut;
/// use qera_core::linalg::{CholeskyError, cholesky};
///
/// let mut a = [4.0, 2.0, 2.0, 5.0];
/// cholesky(DMatrixViewMut::from_slice(&mut a, 2, 2))?;
/// assert_eq!(a, [2.0, 1.0, 2.0, 2.0]); // L is [[2, 0], [1, 2]]
/// let refused = cholesky(DMatrixViewMut::from_slice(&mut [1.0, 1.0, 1.0, 1.0], 2, 2));
/// assert_eq!(refused, Err(CholeskyError::Pivot { index: 1, value: 0.0 }));
/// # Ok::<(), CholeskyError>(())
/// ```
pub fn cholesky(mut a: DMatrixViewMut<'_, f64>) -> Result<(), CholeskyError> {
    let n = a.nrows();
    expect_matrix("a", &a, n, n)?;
    for j in 0..n {
        for k in 0..j {
            let (left, mut column) = a.columns_range_pair_mut(k, j);
            let left = &left.as_slice()[j..];
            add_scaled(-left[0], left, &mut column.as_mut_slice()[j..]);
        }
        let pivot = a[(j, j)];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return Err(CholeskyError::Pivot {
                index: j,
                value: pivot,
            });
        }
        let root = libm::sqrt(pivot);
        let mut column = a.column_mut(j);
        let below = &mut column.as_mut_slice()[j..];
        below.iter_mut().for_each(|x| *x /= root);
        below[0] = root;
    }
    Ok(())
}
