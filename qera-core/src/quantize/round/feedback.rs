//! Rounding with feedback: the error of rounding one input is passed on to the inputs that are
//! rounded after it.
//!
//! **Derivation.** With H = L L^T, L lower triangular, and D_k = L_kk^2,
//!
//!   e^T H e = |L^T e|^2 = sum_k D_k (e_k + sum_{j>k} e_j L_jk / L_kk)^2.
//!
//! Term k holds the errors of the inputs from k on. So inputs are rounded from the last to the
//! first: with t_k = w_k + sum_{j>k} e_j L_jk / L_kk the term is D_k (t_k - q_k)^2, least for the
//! level nearest to t_k. This is GPTQ's rounding (LDLQ) in the order from last to first and without
//! an inverse, so nothing cancels: GPTQ takes the Cholesky factor of H^-1, whose columns are those
//! of L^-T, and its updates are these sums taken apart.
//!
//! **Scales.** The terms of a block's inputs are the cost of its levels, given the blocks after it.
//! The candidates are those of the block's t_k as they stand when it is begun; all are tried, the
//! least cost wins, the first of equals. A choice is greedy: what it does to the blocks that come
//! later is not seen.
//!
//! **Cost.** m^2 flops a column, and block_size^2 for each candidate of each block.
//!
//! **Error bound.** t_k is an f64 sum, rounded to f32 before its level is sought: where the nearest
//! two levels are as near as eps of f32, either may be taken. The loss returned is the sum of the
//! terms, e^T H e to m eps of f64.

use nalgebra::DMatrixView;

use super::super::blocks::{check_length, check_rows, non_finite};
use super::super::grid::Grid;
use super::super::levels::Levels;
use super::error::RoundError;
use crate::linalg::{Workspace, dot, expect_matrix};

/// Which of a block's candidates are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScaleSearch {
    /// Only the levels of nearest rounding are tried.
    First,
    /// All levels that the block may have are tried.
    #[default]
    All,
}

/// What is the same for every column of a weight.
struct Rounding<'a> {
    factor: DMatrixView<'a, f64>,
    grid: &'a Grid,
    search: ScaleSearch,
}

/// Number of `f64` that [`feedback()`] needs: `in_features` + `block_size`.
#[must_use]
pub const fn feedback_workspace_len(in_features: usize, block_size: usize) -> usize {
    in_features.saturating_add(block_size)
}

/// Rounds a weight so that e^T H e is small, by the factor of H, and returns the sum of e^T H e
/// over the output columns.
///
/// # Shapes
/// | argument | shape | |
/// |---|---|---|
/// | `factor` | m x m | L of [`cholesky`](crate::linalg::cholesky()); its lower triangle is read |
/// | `weight` | `[out_features, m]` | row-major |
/// | `values` | as `weight` | W~ |
/// | `levels` | out_features x blocks | of each block, rows one after the other |
///
/// # Workspace
/// [`feedback_workspace_len`]`(m, block_size)` = m + block_size.
///
/// # Errors
/// [`Shape`](RoundError::Shape), [`Grid`](RoundError::Grid) (lengths),
/// [`Diagonal`](RoundError::Diagonal), [`NonFinite`](RoundError::NonFinite) and
/// [`Workspace`](RoundError::Workspace) before anything is written; [`Grid`](RoundError::Grid) for
/// the first infinite or NaN weight.
///
/// # Numerics
/// Under the identity without a search this is rounding to nearest, halves to even.
///
/// # Determinism
/// Columns are independent; sums within one come in a fixed order.
///
/// # References
/// Frantar et al., *GPTQ*, ICLR 2023, algorithm 1; Chee et al., *QuIP*, NeurIPS 2023, theorem 1.
///
/// # Example
/// ```
/// use nalgebra::{DMatrixView, DMatrixViewMut};
/// use qera_core::linalg::cholesky;
/// use qera_core::quantize::{Grid, Mxint, round};
///
/// // Two inputs that are nearly the same: their errors should cancel.
/// let mut factor = [1.0, 0.9, 0.0, 1.0];
/// cholesky(DMatrixViewMut::from_slice(&mut factor, 2, 2))?;
/// let grid = Grid::Mxint(Mxint::new(3, 2)?);
/// let (mut values, mut levels) = ([0.0; 2], [grid.candidates(&[0.0]).first()]);
/// let loss = round::feedback(
///     DMatrixView::from_slice(&factor, 2, 2),
///     &grid,
///     round::ScaleSearch::First,
///     &[0.7, 1.2],
///     &mut values,
///     &mut levels,
///     &mut [0.0; round::feedback_workspace_len(2, 2)],
/// )?;
/// assert_eq!(values, [1.0, 1.0]); // To nearest: 0.5 and 1.
/// assert!((loss - (0.3 * 0.3 + 0.2 * 0.2 - 2.0 * 0.9 * 0.3 * 0.2)).abs() < 1e-7);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn feedback(
    factor: DMatrixView<'_, f64>,
    grid: &Grid,
    search: ScaleSearch,
    weight: &[f32],
    values: &mut [f32],
    levels: &mut [Levels],
    workspace: &mut [f64],
) -> Result<f64, RoundError> {
    let m = factor.nrows();
    expect_matrix("factor", &factor, m, m)?;
    check_rows(weight.len(), m)?;
    check_length(weight.len(), values.len())?;
    let blocks = m.div_ceil(grid.block_size());
    check_length(weight.len() / m * blocks, levels.len())?;
    check_factor(&factor)?;
    let needed = feedback_workspace_len(m, grid.block_size());
    let mut workspace = Workspace::new(workspace, needed)?;
    let (errors, owed) = (workspace.take(m), workspace.take(grid.block_size()));
    let rounding = Rounding {
        factor,
        grid,
        search,
    };
    let columns = weight.chunks_exact(m).zip(values.chunks_exact_mut(m));
    let mut loss = 0.0;
    for (row, ((weight, values), levels)) in
        columns.zip(levels.chunks_exact_mut(blocks)).enumerate()
    {
        if !weight.iter().all(|x| x.is_finite()) {
            return Err(non_finite(row, weight).into());
        }
        loss += rounding.column(weight, values, levels, errors, owed);
    }
    Ok(loss)
}

/// Refuses a factor with a diagonal that is not positive, or anything that is not finite.
fn check_factor(factor: &DMatrixView<'_, f64>) -> Result<(), RoundError> {
    for (k, column) in factor.column_iter().enumerate() {
        let below = &column.as_slice()[k..];
        if let Some(place) = below.iter().position(|x| !x.is_finite()) {
            return Err(RoundError::NonFinite {
                operand: "factor",
                index: k * factor.nrows() + k + place,
            });
        }
        if below[0] <= 0.0 {
            return Err(RoundError::Diagonal {
                index: k,
                value: below[0],
            });
        }
    }
    Ok(())
}

impl Rounding<'_> {
    /// Rounds one output column, block by block from the last on, and returns its loss.
    fn column(
        &self,
        weight: &[f32],
        values: &mut [f32],
        levels: &mut [Levels],
        errors: &mut [f64],
        owed: &mut [f64],
    ) -> f64 {
        let (m, block_size) = (weight.len(), self.grid.block_size());
        let mut loss = 0.0;
        for (block, levels) in levels.iter_mut().enumerate().rev() {
            let (begin, end) = (block * block_size, m.min((block + 1) * block_size));
            for k in begin..end {
                let column = self.factor.column(k);
                let column = column.as_slice();
                owed[k - begin] = dot(&column[end..], &errors[end..]);
                values[k] = narrowed(f64::from(weight[k]) + owed[k - begin] / column[k]);
            }
            let candidates = self.grid.candidates(&values[begin..end]);
            let mut tried = |levels: &Levels| {
                let (weight, owed) = (&weight[begin..end], &owed[..end - begin]);
                self.block(
                    begin,
                    levels,
                    weight,
                    owed,
                    &mut values[begin..end],
                    &mut errors[begin..end],
                )
            };
            let all = candidates.as_slice();
            let offered = match self.search {
                ScaleSearch::First => &all[..1],
                ScaleSearch::All => all,
            };
            let (mut best, mut least) = (0, f64::INFINITY);
            for (place, levels) in offered.iter().enumerate() {
                let cost = tried(levels);
                if cost < least {
                    (best, least) = (place, cost);
                }
            }
            if best + 1 < offered.len() {
                tried(&offered[best]); // What was tried last stands.
            }
            *levels = offered[best];
            loss += least;
        }
        loss
    }

    /// Rounds the inputs of a block from the last on, `owed` being what the blocks after it owe
    /// them, and returns what they add to the loss.
    fn block(
        &self,
        begin: usize,
        levels: &Levels,
        weight: &[f32],
        owed: &[f64],
        values: &mut [f32],
        errors: &mut [f64],
    ) -> f64 {
        let mut loss = 0.0;
        for (k, (&weight, &owed)) in weight.iter().zip(owed).enumerate().rev() {
            let column = self.factor.column(begin + k);
            let column = &column.as_slice()[begin..];
            let own = dot(&column[k + 1..errors.len()], &errors[k + 1..]);
            let target = f64::from(weight) + (owed + own) / column[k];
            let value = levels.nearest(narrowed(target));
            let missed = (target - f64::from(value)) * column[k];
            loss += missed * missed;
            values[k] = value;
            errors[k] = f64::from(weight) - f64::from(value);
        }
        loss
    }
}

/// Rounds to f32, in which levels are sought; what is too large becomes infinite and gets the last
/// level.
#[expect(clippy::cast_possible_truncation, reason = "f32 is what levels are in")]
pub(super) const fn narrowed(x: f64) -> f32 {
    x as f32
}
