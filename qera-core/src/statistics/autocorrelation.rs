//! The autocorrelation R = E\[x^T x\] of a layer's input, uncentred: all that QERA-exact needs.
//!
//! R is symmetric, so its upper triangle is kept by rows, m (m + 1) / 2 numbers (see
//! [`crate::packed`]). It is kept as a mean. A batch b of weight n_b, whose own mean of products is
//! R_b, is folded in by
//!
//!   R_ij += (n_b / N)(R_b,ij - R_ij),   N being the weight with the batch,
//!
//! so the result is sum w x^T x / N whatever the partition, up to rounding. The products x_i x_j
//! are rounded to f32 and everything after them is f64 ([`update`](Autocorrelation::update)), or
//! the whole of a block's X^T X comes in f32 from a matrix product
//! ([`fold_block`](Autocorrelation::fold_block), for hosts).
//!
//! # Two ways in
//! `update` goes through R once for each batch, not once for each row: it takes 64 columns of one
//! row of R, sums their products over all rows of the batch in 64 f64 numbers on the stack, and
//! folds. R is by far the largest thing here (at m = 4096, 64 MiB), so a batch of n rows costs one
//! n-th of the memory traffic of a row at a time. It needs no workspace. `fold_block` lets the host
//! form X^T X at the speed of its matrix product.
//!
//! Cost: n m (m + 1) flops for n rows, or m (m + 1) for a block. Error: 2^-24 relative to sqrt(R_ii
//! R_jj) from the products (their errors average out), plus the bound of [the module](super), which
//! for non-negative sums stays far below 1e-12; `fold_block` inherits the f32 error of the block's
//! own sums, about 2^-24 sqrt(rows). Source: QERA (ICLR 2025), theorem 1 and algorithm 1, and its
//! appendix A.7 on f32 products with f64 sums; the fold is Chan, Golub and LeVeque 1983, eq. 2.1,
//! without centring.

use super::error::{StatisticError, check_in_features, check_length, check_values, check_weight};
use super::fold::fold_means;
use crate::packed::{packed_len, packed_offset, packed_rows};
use crate::rows::Rows;
use nalgebra::{DMatrixView, DMatrixViewMut};

/// Columns summed at a time: 512 bytes of stack, and as many additions as hide the latency of one.
const TILE: usize = 64;

/// Running E\[x^T x\], packed.
#[derive(Debug)]
pub struct Autocorrelation<'a> {
    packed: &'a mut [f64],
    in_features: usize,
    weight: f64,
}

/// How the sums of a block of rows change a mean: R_ij = (1 - n_b / N) R_ij + sum / N, which is the
/// module's fold with the division by n_b taken out. For hosts that form X^T X tile by tile of rows
/// that were checked, and fold every entry of the triangle exactly once.
///
/// ```
/// use qera_core::statistics::BlockShare;
/// let mut packed = [1.0, 0.0, 1.0]; // two rows seen
/// let share = BlockShare::new(2.0, 2.0);
/// assert_eq!((share.kept(), share.per_sum()), (0.5, 0.25));
/// share.fold(&mut packed[..2], &[10.0, -10.0]); // row 0
/// share.fold(&mut packed[2..], &[20.0]); // row 1
/// assert_eq!(packed, [3.0, -2.5, 5.5]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockShare {
    per_sum: f64,
    kept: f64,
}

impl BlockShare {
    /// The share of a block of weight `weight` > 0 that comes after rows of total weight `before`.
    #[must_use]
    pub const fn new(before: f64, weight: f64) -> Self {
        Self {
            per_sum: 1.0 / (before + weight),
            kept: before / (before + weight),
        }
    }

    /// What a mean is multiplied by: 1 - n_b / N.
    #[must_use]
    pub const fn kept(&self) -> f64 {
        self.kept
    }

    /// What a sum is multiplied by: 1 / N.
    #[must_use]
    pub const fn per_sum(&self) -> f64 {
        self.per_sum
    }

    /// Folds a run of sums into the means that they belong to.
    #[inline]
    pub fn fold(&self, means: &mut [f64], sums: &[f64]) {
        for (mean, sum) in means.iter_mut().zip(sums) {
            *mean = self.kept * *mean + self.per_sum * sum;
        }
    }
}

impl<'a> Autocorrelation<'a> {
    /// Starts from nothing: zeroes `packed`.
    ///
    /// # Shapes
    /// `packed` holds [`packed_len`]`(in_features)` numbers.
    ///
    /// # Errors
    /// [`StatisticError::Length`] for another length, or when `in_features` is 0.
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::Autocorrelation};
    /// let mut packed = [0.0; 3];
    /// let mut autocorrelation = Autocorrelation::new(&mut packed, 2)?;
    /// autocorrelation.update(&Rows::new(&[1.0, 2.0, 3.0, -4.0], 2)?)?;
    /// assert_eq!(autocorrelation.packed(), [5.0, -5.0, 10.0]);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn new(packed: &'a mut [f64], in_features: usize) -> Result<Self, StatisticError> {
        packed.fill(0.0);
        Self::resume(packed, in_features, 0.0)
    }

    /// Continues from saved values of total weight `weight`.
    ///
    /// # Errors
    /// [`StatisticError::Length`] as for [`new`](Self::new), [`StatisticError::Value`] for a saved
    /// value that is not finite or a negative one on the diagonal, [`StatisticError::Weight`].
    pub fn resume(
        packed: &'a mut [f64],
        in_features: usize,
        weight: f64,
    ) -> Result<Self, StatisticError> {
        check_length(packed_len(in_features.max(1)), packed.len())?;
        check_packed(packed, in_features)?;
        Self::go_on(packed, in_features, weight)
    }

    /// Continues from values that this statistic itself left behind, so only their number is
    /// checked.
    ///
    /// # Errors
    /// [`StatisticError::Length`] as for [`new`](Self::new), [`StatisticError::Weight`].
    ///
    /// ```
    /// use qera_core::{rows::Rows, statistics::Autocorrelation};
    /// let mut packed = [0.0];
    /// for (before, row) in [(0.0, [1.0]), (1.0, [3.0])] {
    ///     Autocorrelation::go_on(&mut packed, 1, before)?.update(&Rows::new(&row, 1)?)?;
    /// }
    /// assert_eq!(packed, [5.0]); // the mean of 1 and 9
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn go_on(
        packed: &'a mut [f64],
        in_features: usize,
        weight: f64,
    ) -> Result<Self, StatisticError> {
        check_length(packed_len(in_features.max(1)), packed.len())?;
        check_weight(weight)?;
        Ok(Self {
            packed,
            in_features,
            weight,
        })
    }

    /// Takes rows in; no workspace (for devices).
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when the rows are of another width.
    pub fn update(&mut self, rows: &Rows<'_>) -> Result<(), StatisticError> {
        check_in_features(self.in_features, rows.in_features())?;
        let batch = rows.weight();
        if batch <= 0.0 {
            return Ok(());
        }
        self.weight += batch;
        let share = batch / self.weight;
        for i in 0..self.in_features {
            let triangle_row = &mut self.packed
                [packed_offset(self.in_features, i)..packed_offset(self.in_features, i + 1)];
            for (tile, means) in triangle_row.chunks_mut(TILE).enumerate() {
                let mut sums = [0.0_f64; TILE];
                let sums = &mut sums[..means.len()];
                let first = i + tile * TILE;
                for row in rows.iter() {
                    let (x, weight) = (row.values[i], f64::from(row.weight));
                    for (sum, &y) in sums.iter_mut().zip(&row.values[first..]) {
                        *sum += weight * f64::from(x * y);
                    }
                }
                for (mean, sum) in means.iter_mut().zip(sums) {
                    *mean += share * (*sum / batch - *mean);
                }
            }
        }
        Ok(())
    }

    /// Takes a block of rows in as its sum of products X^T X, formed by the caller (for hosts).
    ///
    /// # Shapes
    /// `sums` is in_features x in_features; only its lower triangle, `sums[(i, j)]` with i >= j, is
    /// read. `weight` is the number of rows summed, or the sum of their weights.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] for another shape, [`StatisticError::Weight`],
    /// [`StatisticError::Sum`] for the first sum that is not finite. A block of weight 0 is no
    /// block: its sums are not looked at.
    ///
    /// ```
    /// use nalgebra::DMatrixView;
    /// use qera_core::statistics::Autocorrelation;
    /// let mut packed = [0.0; 3];
    /// let mut autocorrelation = Autocorrelation::new(&mut packed, 2)?;
    /// let sums = [10.0, -10.0, f32::NAN, 20.0]; // column-major: the upper triangle is never read
    /// autocorrelation.fold_block(DMatrixView::from_slice(&sums, 2, 2), 2.0)?;
    /// assert_eq!(autocorrelation.packed(), [5.0, -5.0, 10.0]);
    /// # Ok::<(), qera_core::statistics::StatisticError>(())
    /// ```
    pub fn fold_block(
        &mut self,
        sums: DMatrixView<'_, f32>,
        weight: f64,
    ) -> Result<(), StatisticError> {
        check_in_features(self.in_features, sums.nrows())?;
        check_in_features(self.in_features, sums.ncols())?;
        check_weight(weight)?;
        if weight <= 0.0 {
            return Ok(());
        }
        for (i, column) in sums.column_iter().enumerate() {
            let below = &column.as_slice()[i..];
            if let Some(found) = below.iter().position(|sum| !sum.is_finite()) {
                return Err(StatisticError::Sum {
                    row: i + found,
                    column: i,
                    value: below[found],
                });
            }
        }
        self.weight += weight;
        let share = weight / self.weight;
        let mut rest = &mut *self.packed;
        for (i, column) in sums.column_iter().enumerate() {
            // Column i from the diagonal down is row i of the triangle.
            let (means, after) = rest.split_at_mut(self.in_features - i);
            for (mean, &sum) in means.iter_mut().zip(&column.as_slice()[i..]) {
                *mean += share * (f64::from(sum) / weight - *mean);
            }
            rest = after;
        }
        Ok(())
    }

    /// Takes in what another state has seen, as if its rows had come here: its packed values and
    /// its weight.
    ///
    /// # Errors
    /// [`StatisticError::Length`], [`StatisticError::Weight`], and [`StatisticError::Value`] for
    /// values that no state has.
    pub fn merge(&mut self, packed: &[f64], weight: f64) -> Result<(), StatisticError> {
        check_length(self.packed.len(), packed.len())?;
        check_weight(weight)?;
        check_packed(packed, self.in_features)?;
        self.weight = fold_means(self.packed, self.weight, packed, weight);
        Ok(())
    }

    /// Returns the total weight of the rows seen.
    #[must_use]
    pub const fn weight(&self) -> f64 {
        self.weight
    }

    /// Returns in_features.
    #[must_use]
    pub const fn in_features(&self) -> usize {
        self.in_features
    }

    /// Returns the packed triangle: with the weight, what a snapshot keeps.
    #[must_use]
    pub const fn packed(&self) -> &[f64] {
        self.packed
    }

    /// Returns R_ij, i and j in either order; `None` outside the matrix.
    ///
    /// ```
    /// use qera_core::statistics::Autocorrelation;
    /// let (mut packed, mut diagonal) = ([5.0, -5.0, 10.0], [0.0; 2]);
    /// let autocorrelation = Autocorrelation::resume(&mut packed, 2, 2.0)?;
    /// assert_eq!(autocorrelation.get(1, 0), Some(-5.0));
    /// assert_eq!(autocorrelation.get(2, 0), None);
    /// autocorrelation.diagonal(&mut diagonal)?;
    /// assert_eq!(diagonal, [5.0, 10.0]);
    /// # Ok::<(), qera_core::statistics::StatisticError>(())
    /// ```
    #[must_use]
    pub fn get(&self, i: usize, j: usize) -> Option<f64> {
        let (first, last) = (i.min(j), i.max(j));
        if last >= self.in_features {
            return None;
        }
        self.packed
            .get(packed_offset(self.in_features, first) + last - first)
            .copied()
    }

    /// Writes the diagonal, E\[x_i^2\].
    ///
    /// # Errors
    /// [`StatisticError::Length`] when `out` does not have in_features numbers.
    pub fn diagonal(&self, out: &mut [f64]) -> Result<(), StatisticError> {
        check_length(self.in_features, out.len())?;
        for (value, row) in out
            .iter_mut()
            .zip(packed_rows(self.packed, self.in_features))
        {
            *value = row[0];
        }
        Ok(())
    }

    /// Writes both triangles of R.
    ///
    /// # Errors
    /// [`StatisticError::InFeatures`] when `out` is not in_features x in_features.
    ///
    /// ```
    /// use nalgebra::DMatrixViewMut;
    /// use qera_core::statistics::Autocorrelation;
    /// let (mut packed, mut full) = ([5.0, -5.0, 10.0], [0.0; 4]);
    /// let autocorrelation = Autocorrelation::resume(&mut packed, 2, 2.0)?;
    /// autocorrelation.write_full(DMatrixViewMut::from_slice(&mut full, 2, 2))?;
    /// assert_eq!(full, [5.0, -5.0, -5.0, 10.0]);
    /// # Ok::<(), qera_core::statistics::StatisticError>(())
    /// ```
    pub fn write_full(&self, mut out: DMatrixViewMut<'_, f64>) -> Result<(), StatisticError> {
        check_in_features(self.in_features, out.nrows())?;
        check_in_features(self.in_features, out.ncols())?;
        for (i, row) in packed_rows(self.packed, self.in_features).enumerate() {
            for (j, &value) in (i..).zip(row) {
                out[(j, i)] = value;
                out[(i, j)] = value;
            }
        }
        Ok(())
    }
}

/// Refuses packed values that no autocorrelation can have.
fn check_packed(packed: &[f64], in_features: usize) -> Result<(), StatisticError> {
    check_values(packed, f64::MIN)?;
    for i in 0..in_features {
        let index = packed_offset(in_features, i);
        if packed[index] < 0.0 {
            return Err(StatisticError::Value {
                index,
                value: packed[index],
            });
        }
    }
    Ok(())
}
