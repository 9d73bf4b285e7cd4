//! The output-error sketch: QERA-exact where R does not fit.
//!
//! **Derivation.** QERA-exact is C = E V V^T with V the top eigenvectors of G = E^T R E, and
//!
//! ```text
//! G = E^T E[x^T x] E = E[d^T d],   d = x E,
//! ```
//!
//! so it is the principal component analysis of the output errors d, uncentred. Where E is known
//! before the rows come (W~ was made without R, or by somebody else), the rows d can be summarised
//! as they pass, and R, m (m + 1) / 2 numbers, is not needed at all.
//!
//! The summary is the Frequent Directions sketch S of at most l - 1 rows of n numbers. A block of
//! rows d is stacked below S; of the singular values s_i of the stack, in descending order, those
//! from the l-th on go, and the others give up as much:
//!
//! ```text
//! [S; D] = U diag(s) V^T,   delta = s_l^2,   S' = diag(sqrt(s_i^2 - delta)) V^T,  i < l.
//! ```
//!
//! Every direction loses at most delta by it, and l directions lose all of that or more. With Delta
//! the sum of all deltas this gives, for S and G alike as means over the rows seen,
//!
//! ```text
//! 0 <= G - S^T S <= Delta I,     l Delta <= tr(G) - ||S||_F^2,
//! ```
//!
//! whence Delta <= sum_{i > k} lambda_i(G) / (l - k) for every k < l: a quickly falling spectrum
//! costs nothing. Two sketches merge by stacking one on the other; the bounds then add up.
//!
//! **What is known of the result.** tr(G) is exact. For V, the k leading directions of S, the error
//! that is left, f = tr(G) - tr(V^T G V), and the smallest that rank k can leave both lie within
//!
//! ```text
//! [tr(G) - sum_{i <= k} lambda_i(S^T S) - k Delta,   tr(G) - sum_{i <= k} lambda_i(S^T S)],
//! ```
//!
//! [`ErrorSketch::optimum`]. On two layers of a real model at 3 bits and k = 32 the error itself is
//! at most 0.5 % above the smallest for l = 128, and 6 % for l = 64.
//!
//! # What is kept
//! The means, as everywhere in [this module](super): old rows count sqrt(N_old / N) when new ones
//! of weight w count sqrt(w / N). State: l - 1 rows of n numbers in f32, and the three numbers of
//! [`SketchTotals`]; for m = 14336, n = 4096 and l = 128 these are 2.1 MB where the packed R has
//! 822. Rows in f32 are enough: what rounding a row changes is orthogonal to it or a change of its
//! length by 2^-24, so that it turns a direction of variance lambda by an angle of 2^-24, and costs
//! 2^-48 lambda a shrink.
//!
//! # Cost
//! 2 m n flops a row for d, with every column of E asked for once a block; and a shrink, with r the
//! rows that are kept and those of the block: r^2 n for the Gram matrix in f64, about 60 r^3 for
//! its eigenvectors by [Jacobi rotations](crate::linalg::jacobi_eigen()), 2 (l - 1) r n for the
//! product. The Gram matrix squares the singular values, which costs eigenvalues below r eps of the
//! largest: these are set to zero, and belong to what the bound leaves open anyway.
//!
//! The caller chooses the block by the room that is lent. Large blocks mean fewer shrinks, of which
//! each loses something; the eigenvectors cost least a row, r^3 / block, at blocks of l / 2. The
//! figures above are of blocks of l rows.
//!
//! # References
//! Liberty, *Simple and deterministic matrix sketching*, KDD 2013; Ghashami, Liberty, Phillips and
//! Woodruff, *Frequent Directions*, SIAM J. Comput. 45 (2016), theorem 1.1 and section 3 (merging).
//! QERA (ICLR 2025), theorem 1, for what is sketched.

mod output_error;
mod refusal;
mod shrink;

pub use output_error::output_errors;
pub use refusal::SketchError;
pub use shrink::error_sketch_workspace_len;

use nalgebra::DMatrixViewMut;

use super::error::{StatisticError, check_length, check_values, check_weight};
use crate::linalg::expect_matrix;
use crate::rows::Rows;
use shrink::{Stack, shrink};

/// A direction that is not longer than this, relative to the row it came from, lies within the
/// directions before it.
const DEPENDENT: f64 = 1e-3;

/// The numbers that a sketch has beside its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SketchTotals {
    /// N, the weight of all rows.
    pub weight: f64,
    /// tr(G) = E\[|d|^2\], the expected squared output error without a correction: exact.
    pub trace: f64,
    /// Delta, the most by which G exceeds S^T S in any direction.
    pub shrunk: f64,
}

/// The interval in which the smallest error of a rank lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimumInterval {
    /// The lower end: no correction of the rank leaves less.
    pub least: f64,
    /// The upper end: the correction by the sketch leaves at most this, before its factors are
    /// rounded.
    pub most: f64,
}

/// What the caller lends to [`ErrorSketch::update`] beside the state.
#[derive(Debug)]
pub struct SketchRoom<'a> {
    /// Room for the errors d of a block of rows, n numbers each. As many rows as fit are shrunk in
    /// at a time.
    pub errors: &'a mut [f32],
    /// Room for columns of E, m numbers each. As many columns as fit are asked for at a time.
    pub columns: &'a mut [f32],
    /// Workspace of a shrink: [`error_sketch_workspace_len`]`(l - 1, rows of a block)`.
    pub workspace: &'a mut [f64],
}

/// A running sketch of the output errors d = x E.
///
/// ```
/// use qera_core::rows::Rows;
/// use qera_core::statistics::{
///     ErrorSketch, OptimumInterval, SketchError, SketchRoom, error_sketch_workspace_len,
/// };
///
/// const M: usize = 2; // in_features
/// const N: usize = 3; // out_features
/// let error = [1.0_f32, 0.0, 0.0, 2.0, 0.0, 0.0]; // E by columns: (1, 0), (0, 2), (0, 0)
/// let mut state = [0.0; 2 * N]; // l = 3: two rows survive
/// let mut sketch = ErrorSketch::new(&mut state, N)?;
/// let (mut errors, mut columns) = ([0.0; 2 * N], [0.0; M]); // two rows, one column of E at a time
/// let mut workspace = [0.0; error_sketch_workspace_len(2, 2)];
/// let rows = Rows::new(&[3.0, 0.0, 0.0, 1.0, 3.0, 1.0, -3.0, 1.0], M)?;
/// let mut error = |first: usize, columns: &mut [f32]| {
///     columns.copy_from_slice(&error[first * M..][..columns.len()]);
/// };
/// let mut none = SketchRoom { errors: &mut [], columns: &mut [], workspace: &mut [] };
/// let refused = sketch.update(&rows, &mut error, &mut none);
/// assert!(matches!(refused, Err(SketchError::Room { lent: 0, .. })));
/// let (errors, columns, workspace) = (&mut errors[..], &mut columns[..], &mut workspace[..]);
/// sketch.update(&rows, &mut error, &mut SketchRoom { errors, columns, workspace })?;
/// // d: (3, 0, 0), (0, 2, 0), (3, 2, 0), (-3, 2, 0). Two directions, so that nothing is lost.
/// let totals = sketch.totals();
/// assert!((totals.trace - 9.75).abs() < 1e-12 && totals.shrunk == 0.0);
/// // Rank 1 can repair 6.75 of 9.75.
/// let OptimumInterval { least, most } = sketch.optimum(1);
/// assert!((most - 3.0).abs() < 1e-6 && least == most);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ErrorSketch<'a> {
    /// The rows of the sketch: mutually orthogonal, the longest first, zeros at the end.
    rows: &'a mut [f32],
    out_features: usize,
    totals: SketchTotals,
}

impl<'a> ErrorSketch<'a> {
    /// Starts from nothing: zeroes `rows`.
    ///
    /// # Shapes
    /// `rows` holds l - 1 >= 1 rows of `out_features` numbers.
    ///
    /// # Errors
    /// [`StatisticError::Length`] when it does not hold whole rows, or none.
    pub fn new(rows: &'a mut [f32], out_features: usize) -> Result<Self, StatisticError> {
        rows.fill(0.0);
        Self::resume(rows, out_features, SketchTotals::default())
    }

    /// Continues from saved rows and totals.
    ///
    /// # Errors
    /// [`StatisticError::Length`] as for [`new`](Self::new); [`StatisticError::Value`] for a row
    /// that is not finite (its index is that of the number), or a trace or Delta that is negative
    /// or not finite (index 0 or 1); [`StatisticError::Weight`].
    pub fn resume(
        rows: &'a mut [f32],
        out_features: usize,
        totals: SketchTotals,
    ) -> Result<Self, StatisticError> {
        let kept = rows.len().checked_div(out_features).unwrap_or(0).max(1);
        check_length(kept.saturating_mul(out_features.max(1)), rows.len())?;
        check_weight(totals.weight)?;
        check_values(&[totals.trace, totals.shrunk], 0.0)?;
        if let Some(index) = rows.iter().position(|value| !value.is_finite()) {
            let value = f64::from(rows[index]);
            return Err(StatisticError::Value { index, value });
        }
        Ok(Self {
            rows,
            out_features,
            totals,
        })
    }

    /// Takes rows x in, block by block. `error(first, columns)` fills `columns` with the columns
    /// `first..` of E, m numbers each; every column is asked for once a block, in order.
    ///
    /// # Shapes
    /// `rows` has m columns; `room.errors` holds whole rows of n numbers, `room.columns` whole
    /// columns of m, each at least one.
    ///
    /// # Workspace
    /// [`error_sketch_workspace_len`]`(l - 1, rows of room.errors)`.
    ///
    /// # Errors
    /// [`SketchError`]. The blocks before the one that is refused have been taken in, which the
    /// [weight](SketchTotals::weight) says; that block has left no trace.
    ///
    /// # Numerics
    /// d is summed in f32 over at most 64 products and in f64 over these sums, and rounded to f32
    /// ([`output_errors`]); all else is f64.
    ///
    /// # Determinism
    /// The same rows in the same blocks give the same bits. Another partition gives another sketch,
    /// within the same bounds.
    pub fn update(
        &mut self,
        rows: &Rows<'_>,
        error: &mut impl FnMut(usize, &mut [f32]),
        room: &mut SketchRoom<'_>,
    ) -> Result<(), SketchError> {
        let n = self.out_features;
        let block = room.errors.len() / n;
        let needed = error_sketch_workspace_len(self.kept(), block);
        if block == 0 || needed > room.workspace.len() {
            let lent = room.workspace.len();
            return Err(SketchError::Room { needed, lent });
        }
        for first in (0..rows.len()).step_by(block) {
            let piece = rows.range(first, block);
            let errors = &mut room.errors[..piece.len() * n];
            output_errors(&piece, error, room.columns, errors)?;
            let errors = piece.weights_for(errors, n)?;
            self.take_errors(&errors, room.workspace)?;
        }
        Ok(())
    }

    /// Takes output errors d in as one block, formed by the caller.
    ///
    /// # Workspace
    /// [`error_sketch_workspace_len`]`(l - 1, rows)`.
    ///
    /// # Errors
    /// [`SketchError::Width`] for rows of another width, [`SketchError::Room`],
    /// [`SketchError::Shrink`]; the state is then as it was.
    ///
    /// ```
    /// use qera_core::rows::Rows;
    /// use qera_core::statistics::{ErrorSketch, error_sketch_workspace_len};
    /// let mut state = [0.0; 2]; // l = 2: one row of two numbers survives
    /// let mut sketch = ErrorSketch::new(&mut state, 2)?;
    /// let mut workspace = [0.0; error_sketch_workspace_len(1, 2)];
    /// sketch.take_errors(&Rows::new(&[3.0, 0.0, 0.0, 1.0], 2)?, &mut workspace)?;
    /// // Means of 4.5 and 0.5: the row that goes takes as much of the one that stays.
    /// assert!((sketch.rows()[0].abs() - 2.0).abs() < 1e-6);
    /// assert!((sketch.totals().shrunk - 0.5).abs() < 1e-12);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn take_errors(
        &mut self,
        errors: &Rows<'_>,
        workspace: &mut [f64],
    ) -> Result<(), SketchError> {
        let (expected, found) = (self.out_features, errors.in_features());
        if expected != found {
            return Err(SketchError::Width { expected, found });
        }
        let (old, new) = (self.totals, errors.weight());
        if new <= 0.0 {
            return Ok(());
        }
        let weight = old.weight + new;
        let weights = errors.iter().map(|row| f64::from(row.weight) / weight);
        let stack = Stack {
            kept_share: old.weight / weight,
            below: errors.values(),
            below_shares: weights,
        };
        let shrunk = shrink(self.rows, self.out_features, stack, workspace)?;
        self.totals = SketchTotals {
            weight,
            trace: old.weight / weight * old.trace + shrunk.trace_below,
            shrunk: old.weight / weight * old.shrunk + shrunk.delta,
        };
        Ok(())
    }

    /// Takes in what another sketch has seen. Both bounds hold for the whole, with the Deltas added
    /// by weight.
    ///
    /// # Workspace
    /// [`error_sketch_workspace_len`]`(l - 1, rows of the other)`.
    ///
    /// # Errors
    /// As [`take_errors`](Self::take_errors). The other may have another l.
    ///
    /// ```
    /// use qera_core::statistics::{ErrorSketch, SketchTotals, error_sketch_workspace_len};
    /// let totals = SketchTotals { weight: 1.0, trace: 4.0, shrunk: 0.0 };
    /// let (mut one, mut two) = ([2.0, 0.0, 0.0, 0.0], [0.0, 2.0]);
    /// let mut sketch = ErrorSketch::resume(&mut one, 2, totals)?; // l = 3
    /// let other = ErrorSketch::resume(&mut two, 2, totals)?; // l = 2
    /// sketch.merge(&other, &mut [0.0; error_sketch_workspace_len(2, 1)])?;
    /// assert_eq!(sketch.totals(), SketchTotals { weight: 2.0, ..totals });
    /// assert!(sketch.eigenvalues().all(|value| (value - 2.0).abs() < 1e-6));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn merge(
        &mut self,
        other: &ErrorSketch<'_>,
        workspace: &mut [f64],
    ) -> Result<(), SketchError> {
        let (expected, found) = (self.out_features, other.out_features);
        if expected != found {
            return Err(SketchError::Width { expected, found });
        }
        let (old, new) = (self.totals, other.totals);
        if new.weight <= 0.0 {
            return Ok(());
        }
        let weight = old.weight + new.weight;
        let (own, others) = (old.weight / weight, new.weight / weight);
        let stack = Stack {
            kept_share: own,
            below: other.rows,
            below_shares: core::iter::repeat_n(others, other.kept()),
        };
        let shrunk = shrink(self.rows, self.out_features, stack, workspace)?;
        self.totals = SketchTotals {
            weight,
            trace: own * old.trace + others * new.trace,
            shrunk: own * old.shrunk + others * new.shrunk + shrunk.delta,
        };
        Ok(())
    }

    /// Writes the leading directions of the sketch, V^T, orthonormal to f64, and returns how many
    /// there are; the rows beyond are zeros. With A = E V they are the correction
    /// ([`reconstruct_sketched`](crate::reconstruct::reconstruct_sketched)).
    ///
    /// # Shapes
    /// `b` is k x n, any k.
    ///
    /// # Errors
    /// [`SketchError::Shape`].
    ///
    /// # Numerics
    /// The rows of the sketch are orthogonal up to their rounding to f32; Gram-Schmidt, twice,
    /// makes the directions orthogonal to f64. A row that lies within those before it, because it
    /// is no more than their rounding, is left out.
    ///
    /// ```
    /// use nalgebra::DMatrixViewMut;
    /// use qera_core::statistics::{ErrorSketch, SketchTotals};
    /// let totals = SketchTotals { weight: 1.0, trace: 29.0, shrunk: 0.0 };
    /// let mut rows = [3.0, 4.0, 0.0, 0.0, 0.0, 2.0];
    /// let sketch = ErrorSketch::resume(&mut rows, 3, totals)?;
    /// let mut b = [0.0; 6];
    /// let used = sketch.finish(DMatrixViewMut::from_slice(&mut b, 2, 3))?;
    /// assert_eq!(used, 2);
    /// assert_eq!(b, [0.6, 0.0, 0.8, 0.0, 0.0, 1.0]); // column-major
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn finish(&self, mut b: DMatrixViewMut<'_, f64>) -> Result<usize, SketchError> {
        let (rank, n) = (b.nrows(), self.out_features);
        expect_matrix("b", &b, rank, n)?;
        b.fill(0.0);
        let mut used = 0;
        for row in self.rows.chunks_exact(n).take(rank) {
            for (j, value) in row.iter().enumerate() {
                b[(used, j)] = f64::from(*value);
            }
            let whole = libm::sqrt(row_product(&b, used, used));
            for direction in (0..used).chain(0..used) {
                let along = row_product(&b, direction, used);
                for j in 0..n {
                    b[(used, j)] -= along * b[(direction, j)];
                }
            }
            let length = libm::sqrt(row_product(&b, used, used));
            if length > DEPENDENT * whole {
                (0..n).for_each(|j| b[(used, j)] /= length);
                used += 1;
            } else {
                (0..n).for_each(|j| b[(used, j)] = 0.0);
            }
        }
        Ok(used)
    }

    /// Says how many numbers a row has.
    #[must_use]
    pub const fn out_features(&self) -> usize {
        self.out_features
    }

    /// Returns weight, trace and Delta.
    #[must_use]
    pub const fn totals(&self) -> SketchTotals {
        self.totals
    }

    /// Returns the l - 1 rows, the longest first; those that are not in use are zeros.
    #[must_use]
    pub const fn rows(&self) -> &[f32] {
        self.rows
    }

    /// Says how many rows survive a shrink, l - 1.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.rows.len() / self.out_features
    }

    /// Returns the leading eigenvalues of S^T S, in descending order up to the rounding of the
    /// rows.
    pub fn eigenvalues(&self) -> impl Iterator<Item = f64> {
        self.rows
            .chunks_exact(self.out_features)
            .map(|row| row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum())
    }

    /// Bounds the smallest error that a correction of `rank` can leave.
    ///
    /// # Numerics
    /// Exact up to 2^-23 of tr(G), the rounding of the rows.
    #[must_use]
    pub fn optimum(&self, rank: usize) -> OptimumInterval {
        let captured: f64 = self.eigenvalues().take(rank).sum();
        let most = (self.totals.trace - captured).max(0.0);
        let hidden = rank.min(self.out_features) as f64 * self.totals.shrunk;
        OptimumInterval {
            least: (most - hidden).max(0.0),
            most,
        }
    }
}

/// The product of two rows of a matrix.
fn row_product(b: &DMatrixViewMut<'_, f64>, p: usize, q: usize) -> f64 {
    (0..b.ncols()).map(|j| b[(p, j)] * b[(q, j)]).sum()
}
