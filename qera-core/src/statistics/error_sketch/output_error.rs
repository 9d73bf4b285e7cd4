//! The output errors d = x E of a block of rows, where E comes by columns.
//!
//! A checkpoint stores W as out_features rows of in_features numbers, and a quantizer's blocks lie
//! along them: a column of E = W - W~ is what one decodes at a time. Nothing here holds more of E
//! than the columns that are lent.

use super::refusal::SketchError;
use crate::rows::Rows;

/// How many products are summed in f32 before the sum is widened: eight lanes of eight.
const PIECE: usize = 64;
const LANES: usize = 8;

/// Forms d = x E. `error(first, columns)` fills `columns` with the columns `first..` of E, m
/// numbers each; every column is asked for once, in order.
///
/// # Shapes
/// `columns` holds whole columns of m = in_features numbers, at least one; `errors` n numbers for
/// each row, row-major, which says what n is.
///
/// # Errors
/// [`SketchError::Room`] when `columns` holds no column, or `errors` no whole rows.
///
/// # Numerics
/// Products in f32, summed in f32 over 64 of them and in f64 over these sums, rounded to f32: an
/// error of at most 2^-20 sum |x_i E_ij|. Overflow gives infinity; whoever takes the errors in
/// refuses that.
///
/// ```
/// use qera_core::rows::Rows;
/// use qera_core::statistics::output_errors;
///
/// let error = [1.0_f32, 2.0, 0.5, 0.0]; // E by columns: (1, 2), (0.5, 0)
/// let (mut columns, mut errors) = ([0.0; 2], [0.0; 4]);
/// let rows = Rows::new(&[1.0, 1.0, 4.0, -1.0], 2)?;
/// output_errors(
///     &rows,
///     &mut |first, columns: &mut [f32]| columns.copy_from_slice(&error[2 * first..][..columns.len()]),
///     &mut columns,
///     &mut errors,
/// )?;
/// assert_eq!(errors, [3.0, 0.5, 2.0, 2.0]);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub fn output_errors(
    rows: &Rows<'_>,
    error: &mut impl FnMut(usize, &mut [f32]),
    columns: &mut [f32],
    errors: &mut [f32],
) -> Result<(), SketchError> {
    if rows.is_empty() {
        return Ok(());
    }
    let (m, n) = (rows.in_features(), errors.len() / rows.len());
    let at_once = columns.len() / m;
    let (needed, lent) = (m.max(rows.len()), columns.len().min(errors.len()));
    if at_once == 0 || n == 0 || !errors.len().is_multiple_of(rows.len()) {
        return Err(SketchError::Room { needed, lent });
    }
    for first in (0..n).step_by(at_once) {
        let columns = &mut columns[..at_once.min(n - first) * m];
        error(first, columns);
        for (row, errors) in rows.iter().zip(errors.chunks_exact_mut(n)) {
            for (column, error) in columns.chunks_exact(m).zip(&mut errors[first..]) {
                *error = product(row.values, column);
            }
        }
    }
    Ok(())
}

/// Returns x e for a row and a column, summed in one fixed order.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the purpose"
)]
fn product(x: &[f32], e: &[f32]) -> f32 {
    let mut total = 0.0_f64;
    for (x, e) in x.chunks(PIECE).zip(e.chunks(PIECE)) {
        let (x_lanes, x_tail) = x.as_chunks::<LANES>();
        let (e_lanes, e_tail) = e.as_chunks::<LANES>();
        let mut sums = [0.0_f32; LANES];
        for (x, e) in x_lanes.iter().zip(e_lanes) {
            for lane in 0..LANES {
                sums[lane] += x[lane] * e[lane];
            }
        }
        for (sum, (x, e)) in sums.iter_mut().zip(x_tail.iter().zip(e_tail)) {
            *sum += x * e;
        }
        let [a, b, c, d, e, f, g, h] = sums;
        total += f64::from(((a + e) + (c + g)) + ((b + f) + (d + h)));
    }
    total as f32
}
