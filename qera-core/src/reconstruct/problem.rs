//! The reconstruction problem of one layer, whose values and shapes are checked once.
//!
//! A [`Problem`] holds what is *known*: the quantization error, the statistic of the inputs, the
//! rank. How it is solved is the [`Method`](super::Method); whatever the method, the reported error
//! is the one under the problem's own statistic. After [`Problem::new`] every value is finite and
//! every shape fits, so the loops behind it check nothing.

use core::fmt;

use nalgebra::DMatrixView;

use crate::linalg::{ShapeMismatch, expect_length, expect_matrix};
use crate::packed::{packed_len, packed_rows};

/// What is known of a layer's input `x` (m values).
#[derive(Clone, Copy, Debug)]
pub enum Statistic<'a> {
    /// `R = E[x^T x]`, upper triangle packed by rows ([`crate::packed`]): m (m + 1) / 2 values.
    Autocorrelation(&'a [f64]),
    /// `D = E[x_i^2]`, its diagonal only: m values. What is off the diagonal is taken as zero (the
    /// paper's assumption 1).
    Diagonal(&'a [f64]),
    /// Nothing: all inputs are taken as independent and of equal size.
    Identity,
}

/// Why a [`Problem`] was refused.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ProblemError {
    /// The layer has no inputs or no outputs.
    Empty {
        /// Rows of `E`.
        in_features: usize,
        /// Columns of `E`.
        out_features: usize,
    },
    /// A lent matrix or slice does not fit `E`.
    Shape(ShapeMismatch),
    /// A value is NaN or infinite.
    NonFinite {
        /// Name of the argument.
        operand: &'static str,
        /// Position in its column-major (or packed) order.
        index: usize,
    },
    /// A second moment, scale or diagonal element of `R` is negative: no inputs have this
    /// statistic.
    Negative {
        /// Name of the argument.
        operand: &'static str,
        /// The input channel.
        channel: usize,
        /// The value.
        value: f64,
    },
    /// The shrinkage is not in [0, 1].
    Shrinkage {
        /// The value.
        value: f64,
    },
}

impl fmt::Display for ProblemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty {
                in_features,
                out_features,
            } => write!(
                f,
                "a {in_features} x {out_features} layer has nothing to correct"
            ),
            Self::Shape(shape) => shape.fmt(f),
            Self::NonFinite { operand, index } => {
                write!(f, "value {index} of `{operand}` is not finite")
            }
            Self::Negative {
                operand,
                channel,
                value,
            } => write!(
                f,
                "`{operand}` is negative for channel {channel}: {value:e}"
            ),
            Self::Shrinkage { value } => write!(f, "shrinkage {value} is not between 0 and 1"),
        }
    }
}

impl core::error::Error for ProblemError {}

impl From<ShapeMismatch> for ProblemError {
    fn from(shape: ShapeMismatch) -> Self {
        Self::Shape(shape)
    }
}

/// One layer's reconstruction problem: minimise `f(A B) = tr(R P P^T)`, `P = E - A B`, over `A` (m
/// x k) and `B` (k x n).
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    error: DMatrixView<'a, f64>,
    statistic: Statistic<'a>,
    rank: usize,
    weight: Option<DMatrixView<'a, f64>>,
    scale: Option<&'a [f64]>,
    start: Option<DMatrixView<'a, f64>>,
    shrinkage: f64,
}

impl<'a> Problem<'a> {
    /// Checks the parts of a problem.
    ///
    /// # Shapes
    /// | argument | shape | |
    /// |---|---|---|
    /// | `error` | m x n | `E = W - W~`; a `[out, in]` row-major weight is this matrix, column-major |
    /// | `statistic` | see [`Statistic`] | of the layer's input |
    /// | `rank` | any | above `min(m, n)` the excess factors are zero |
    ///
    /// # Errors
    /// Every variant of [`ProblemError`] but `Shrinkage`, each with its numbers. That `R` is
    /// positive semi-definite is not checked (it would cost a factorisation): for sums of `x^T x`
    /// it holds up to rounding, which is harmless here.
    ///
    /// # Example
    /// ```
    /// use nalgebra::DMatrixView;
    /// use qera_core::reconstruct::{Problem, ProblemError, Statistic};
    ///
    /// let error = [0.5, -0.5, 0.25, 0.0]; // 2 x 2
    /// let error = DMatrixView::from_slice(&error, 2, 2);
    /// assert!(Problem::new(error, Statistic::Diagonal(&[1.0, 4.0]), 1).is_ok());
    /// assert!(matches!(
    ///     Problem::new(error, Statistic::Diagonal(&[1.0]), 1),
    ///     Err(ProblemError::Shape(_)),
    /// ));
    /// ```
    pub fn new(
        error: DMatrixView<'a, f64>,
        statistic: Statistic<'a>,
        rank: usize,
    ) -> Result<Self, ProblemError> {
        let (in_features, out_features) = error.shape();
        if in_features == 0 || out_features == 0 {
            return Err(ProblemError::Empty {
                in_features,
                out_features,
            });
        }
        finite_matrix("error", &error)?;
        match statistic {
            Statistic::Autocorrelation(packed) => {
                expect_length("autocorrelation", packed, packed_len(in_features))?;
                finite("autocorrelation", packed)?;
                not_negative("autocorrelation", packed_diagonal(packed, in_features))?;
            }
            Statistic::Diagonal(diagonal) => channels("second_moment", diagonal, in_features)?,
            Statistic::Identity => {}
        }
        Ok(Self {
            error,
            statistic,
            rank,
            weight: None,
            scale: None,
            start: None,
            shrinkage: 0.0,
        })
    }

    /// Adds the weight `W` (m x n), so that errors can be reported relative to the output's power.
    ///
    /// # Errors
    /// [`ProblemError::Shape`], [`ProblemError::NonFinite`].
    ///
    /// ```
    /// use nalgebra::DMatrixView;
    /// use qera_core::reconstruct::{Problem, Statistic};
    /// let (error, weight) = ([0.5, -0.5], [2.0, 1.0]);
    /// let problem = Problem::new(DMatrixView::from_slice(&error, 2, 1), Statistic::Identity, 1)?
    ///     .with_weight(DMatrixView::from_slice(&weight, 2, 1))?;
    /// assert!(problem.weight().is_some());
    /// # Ok::<(), qera_core::reconstruct::ProblemError>(())
    /// ```
    pub fn with_weight(mut self, weight: DMatrixView<'a, f64>) -> Result<Self, ProblemError> {
        expect_matrix("weight", &weight, self.in_features(), self.out_features())?;
        finite_matrix("weight", &weight)?;
        self.weight = Some(weight);
        Ok(self)
    }

    /// Adds the magnitude scale `s` of LQER (m values), which [`Method::Lqer`](super::Method::Lqer)
    /// and [`Method::LqerMean`](super::Method::LqerMean) solve with. Its overall size does not
    /// matter.
    ///
    /// # Errors
    /// [`ProblemError::Shape`], [`ProblemError::NonFinite`], [`ProblemError::Negative`].
    ///
    /// ```
    /// use nalgebra::DMatrixView;
    /// use qera_core::reconstruct::{Problem, Statistic};
    /// let error = [0.5, -0.5];
    /// let problem = Problem::new(DMatrixView::from_slice(&error, 2, 1), Statistic::Identity, 1)?;
    /// assert!(problem.with_scale(&[1.0, 3.0]).is_ok());
    /// assert!(problem.with_scale(&[1.0, -3.0]).is_err());
    /// # Ok::<(), qera_core::reconstruct::ProblemError>(())
    /// ```
    pub fn with_scale(mut self, scale: &'a [f64]) -> Result<Self, ProblemError> {
        channels("scale", scale, self.error.nrows())?;
        self.scale = Some(scale);
        Ok(self)
    }

    /// Shrinks the autocorrelation toward its diagonal for the solve, `R_a = (1 - a) R + a
    /// diag(R)`: with few tokens the off-diagonal part is mostly noise. `a = 0` is QERA-exact, `a =
    /// 1` is QERA-approx. The reported errors stay those under `R` itself. Without an
    /// autocorrelation it changes nothing.
    ///
    /// # Errors
    /// [`ProblemError::Shrinkage`] outside [0, 1].
    ///
    /// ```
    /// use nalgebra::DMatrixView;
    /// use qera_core::reconstruct::{Problem, Statistic};
    /// let error = [0.5, -0.5];
    /// let problem = Problem::new(DMatrixView::from_slice(&error, 2, 1), Statistic::Identity, 1)?;
    /// assert!(problem.with_shrinkage(0.2).is_ok());
    /// assert!(problem.with_shrinkage(f64::NAN).is_err());
    /// # Ok::<(), qera_core::reconstruct::ProblemError>(())
    /// ```
    pub fn with_shrinkage(mut self, shrinkage: f64) -> Result<Self, ProblemError> {
        if !(0.0..=1.0).contains(&shrinkage) {
            return Err(ProblemError::Shrinkage { value: shrinkage });
        }
        self.shrinkage = shrinkage;
        Ok(self)
    }

    /// Adds a warm start for the projection route: n x w, for example the transposed `B` of the
    /// last solve.
    ///
    /// # Errors
    /// [`ProblemError::Shape`], [`ProblemError::NonFinite`].
    ///
    /// ```
    /// use nalgebra::DMatrixView;
    /// use qera_core::reconstruct::{Problem, Statistic};
    /// let (error, start) = ([0.5, -0.5], [1.0]);
    /// let problem = Problem::new(DMatrixView::from_slice(&error, 2, 1), Statistic::Identity, 1)?;
    /// assert!(problem.with_start(DMatrixView::from_slice(&start, 1, 1)).is_ok());
    /// # Ok::<(), qera_core::reconstruct::ProblemError>(())
    /// ```
    pub fn with_start(mut self, start: DMatrixView<'a, f64>) -> Result<Self, ProblemError> {
        let columns = start.ncols().max(1);
        expect_matrix("start", &start, self.out_features(), columns)?;
        finite_matrix("start", &start)?;
        self.start = Some(start);
        Ok(self)
    }

    /// The quantization error `E`, m x n.
    #[must_use]
    pub const fn error(&self) -> DMatrixView<'a, f64> {
        self.error
    }

    /// The statistic that errors are reported under.
    #[must_use]
    pub const fn statistic(&self) -> Statistic<'a> {
        self.statistic
    }

    /// The rank asked for.
    #[must_use]
    pub const fn rank(&self) -> usize {
        self.rank
    }

    /// The weight `W`, if it was lent.
    #[must_use]
    pub const fn weight(&self) -> Option<DMatrixView<'a, f64>> {
        self.weight
    }

    /// The magnitude scale of LQER, if it was lent.
    #[must_use]
    pub const fn scale(&self) -> Option<&'a [f64]> {
        self.scale
    }

    /// The warm start, if it was lent.
    #[must_use]
    pub const fn start(&self) -> Option<DMatrixView<'a, f64>> {
        self.start
    }

    /// The shrinkage toward the diagonal.
    #[must_use]
    pub const fn shrinkage(&self) -> f64 {
        self.shrinkage
    }

    /// m, rows of `E`.
    #[must_use]
    pub fn in_features(&self) -> usize {
        self.error.nrows()
    }

    /// n, columns of `E`.
    #[must_use]
    pub fn out_features(&self) -> usize {
        self.error.ncols()
    }
}

/// The diagonal of a packed triangle: the first element of each of its rows.
pub(super) fn packed_diagonal(packed: &[f64], order: usize) -> impl Iterator<Item = f64> {
    packed_rows(packed, order).map(|row| row[0])
}

fn channels(operand: &'static str, values: &[f64], in_features: usize) -> Result<(), ProblemError> {
    expect_length(operand, values, in_features)?;
    finite(operand, values)?;
    not_negative(operand, values.iter().copied())
}

fn finite(operand: &'static str, values: &[f64]) -> Result<(), ProblemError> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(ProblemError::NonFinite { operand, index }),
        None => Ok(()),
    }
}

fn finite_matrix(operand: &'static str, matrix: &DMatrixView<'_, f64>) -> Result<(), ProblemError> {
    for (j, column) in matrix.column_iter().enumerate() {
        if let Some(row) = column.as_slice().iter().position(|x| !x.is_finite()) {
            let index = j * matrix.nrows() + row;
            return Err(ProblemError::NonFinite { operand, index });
        }
    }
    Ok(())
}

fn not_negative(
    operand: &'static str,
    mut values: impl Iterator<Item = f64>,
) -> Result<(), ProblemError> {
    match values.by_ref().enumerate().find(|(_, x)| *x < 0.0) {
        Some((channel, value)) => Err(ProblemError::Negative {
            operand,
            channel,
            value,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagonal_of_a_packed_triangle() {
        let packed = [1.0, 9.0, 9.0, 2.0, 9.0, 3.0];
        assert!(packed_diagonal(&packed, 3).eq([1.0, 2.0, 3.0]));
    }
}
