//! Coordinate descent on the codes of a weight that was rounded.
//!
//! **Derivation.** With g = H e, changing q_i by d changes e^T H e by H_ii d^2 - 2 d g_i =
//! H_ii (d - g_i / H_ii)^2 - g_i^2 / H_ii: least where q_i + d is nearest to t = q_i + g_i / H_ii.
//! So inputs are visited from the first to the last, each takes the level of its block nearest to
//! t, and g -= H_i d, H_i column i of H. A change is made only where d (d - 2 g_i / H_ii) < 0, as
//! computed: so rounding errors, ties and values that are no levels cannot make the objective grow.
//!
//! **Cost.** 2 m^2 flops a column for g, 2 m for each changed code.
//!
//! **Error bound.** g drifts by eps |H_i| |d| a change, in f64: far below what f32 levels can tell.

use nalgebra::DMatrixView;

use super::super::blocks::{check_length, check_rows, non_finite};
use super::super::grid::Grid;
use super::super::levels::Levels;
use super::error::RoundError;
use super::feedback::narrowed;
use crate::linalg::{Workspace, add_scaled, dot, expect_matrix};

/// What a pass of [`descent()`] changed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DescentReport {
    /// How many codes changed.
    pub changed: usize,
    /// The sum of e^T H e over the output columns before the pass.
    pub before: f64,
    /// The sum of e^T H e over the output columns after the pass.
    pub after: f64,
}

/// Number of `f64` that [`descent()`] needs: `2 in_features`.
#[must_use]
pub const fn descent_workspace_len(in_features: usize) -> usize {
    in_features.saturating_mul(2)
}

/// Visits every code of a rounded weight once and changes it where that lowers e^T H e.
///
/// # Shapes
/// | argument | shape | |
/// |---|---|---|
/// | `metric` | m x m | H, symmetric: both triangles are read |
/// | `weight` | `[out_features, m]` | row-major |
/// | `values` | as `weight` | W~, changed in place |
/// | `levels` | out_features x blocks | of each block, as the rounding before gave them |
///
/// # Workspace
/// [`descent_workspace_len`]`(m)` = 2 m.
///
/// # Errors
/// [`Shape`](RoundError::Shape), [`Grid`](RoundError::Grid) (lengths),
/// [`Diagonal`](RoundError::Diagonal), [`NonFinite`](RoundError::NonFinite) and
/// [`Workspace`](RoundError::Workspace) before anything is written; [`Grid`](RoundError::Grid) for
/// a weight or value that is infinite or NaN, its column and those after it being as they were.
///
/// # Numerics
/// `after` is at most `before`, up to the rounding of either sum.
///
/// # Determinism
/// Columns are independent; inputs are visited and sums made in a fixed order.
///
/// # Example
/// ```
/// use nalgebra::DMatrixView;
/// use qera_core::quantize::{Grid, Mxint, round};
///
/// let metric = [1.0, 0.9, 0.9, 1.0];
/// let grid = Grid::Mxint(Mxint::new(3, 2)?);
/// let (mut values, mut levels) = ([0.0; 2], [grid.candidates(&[0.0]).first()]);
/// round::nearest(&grid, &[0.7, 1.2], 2, &mut values, &mut levels)?;
/// assert_eq!(values, [0.5, 1.0]); // Errors 0.2 and 0.2.
/// let metric = DMatrixView::from_slice(&metric, 2, 2);
/// let mut workspace = [0.0; round::descent_workspace_len(2)];
/// let round::DescentReport { changed, before, after } =
///     round::descent(metric, &grid, &[0.7, 1.2], &mut values, &levels, &mut workspace)?;
/// assert_eq!((values, changed), ([1.0, 1.0], 1));
/// assert!((before - 0.152).abs() < 1e-7 && (after - 0.022).abs() < 1e-7);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn descent(
    metric: DMatrixView<'_, f64>,
    grid: &Grid,
    weight: &[f32],
    values: &mut [f32],
    levels: &[Levels],
    workspace: &mut [f64],
) -> Result<DescentReport, RoundError> {
    let (m, block_size) = (metric.nrows(), grid.block_size());
    expect_matrix("metric", &metric, m, m)?;
    check_rows(weight.len(), m)?;
    check_length(weight.len(), values.len())?;
    let blocks = m.div_ceil(block_size);
    check_length(weight.len() / m * blocks, levels.len())?;
    check_metric(&metric)?;
    let mut workspace = Workspace::new(workspace, descent_workspace_len(m))?;
    let (errors, gradient) = (workspace.take(m), workspace.take(m));
    let mut report = DescentReport::default();
    let columns = weight.chunks_exact(m).zip(values.chunks_exact_mut(m));
    for (row, ((weight, values), levels)) in columns.zip(levels.chunks_exact(blocks)).enumerate() {
        for column in [weight, values] {
            if !column.iter().all(|x| x.is_finite()) {
                return Err(non_finite(row, column).into());
            }
        }
        for ((error, &w), &q) in errors.iter_mut().zip(weight).zip(values.iter()) {
            *error = f64::from(w) - f64::from(q);
        }
        for (g, column) in gradient.iter_mut().zip(metric.column_iter()) {
            *g = dot(column.as_slice(), errors);
        }
        report.before += dot(errors, gradient);
        let levels = levels
            .iter()
            .flat_map(|of| core::iter::repeat_n(of, block_size));
        for ((i, value), levels) in values.iter_mut().enumerate().zip(levels) {
            let column = metric.column(i);
            let column = column.as_slice();
            let wanted = gradient[i] / column[i];
            let level = levels.nearest(narrowed(f64::from(*value) + wanted));
            let step = f64::from(level) - f64::from(*value);
            if step * (step - 2.0 * wanted) < 0.0 {
                *value = level;
                errors[i] -= step;
                add_scaled(-step, column, gradient);
                report.changed += 1;
            }
        }
        report.after += dot(errors, gradient);
    }
    Ok(report)
}

/// Refuses a metric with a diagonal that is not positive, or anything that is not finite.
fn check_metric(metric: &DMatrixView<'_, f64>) -> Result<(), RoundError> {
    for (i, column) in metric.column_iter().enumerate() {
        if let Some(place) = column.as_slice().iter().position(|x| !x.is_finite()) {
            return Err(RoundError::NonFinite {
                operand: "metric",
                index: i * metric.nrows() + place,
            });
        }
        if column[i] <= 0.0 {
            return Err(RoundError::Diagonal {
                index: i,
                value: column[i],
            });
        }
    }
    Ok(())
}
