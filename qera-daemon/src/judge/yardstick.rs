//! What a correction is worth: f = tr(R P P^T) with P = E - A B, under the true R whatever the
//! method solved with.
//!
//! Where f is a visible part of tr(R E E^T), it is read off traces in the form f = tr(R E E^T) - 2
//! <R A, E B^T> + <A^T R A, B B^T>. R A and E B^T come out of the solve in f64. For rounded factors
//! only the change by rounding, about a thousandth of them, is multiplied, in f32. It is multiplied
//! in f64 where the change is larger, and by R where that is not ready in f32. R carries the
//! rounding of f32 products, about 1e-7 of its diagonal, so that an f below 1e-4 of that trace
//! cannot be read off it to 0.1 %; it may even come out negative. Then f is measured on the rows
//! that the window holds. Massive channels are in R to f64's precision, so that their part of the
//! trace does not count for this limit. A layer is measured in the same way before and after
//! rounding, so that the two can be compared.
//!
//! R's own rounding of massive channels makes f uncertain by sum_i e_i |P_i|^2, where e_i is the
//! uncertainty of R_ii, and a difference of traces is rounded as its terms are.

use faer::Mat;

use crate::calibrate::site::SiteStatistics;
use crate::calibrate::window::Window;
use crate::host::block_rounding::{InBlocks, RoundingMetric};
use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::core_time::{WorkKind, doing};
use crate::host::dense::{product, squared_lengths};
use crate::host::factors::{Correction, Factors, Rounded, inner};
use crate::host::kernels::stored::StoredRows;
use crate::host::rounding::narrow;
use crate::host::second_moment::SecondMoment;
use crate::host::second_moment::packed::Trace;
use crate::host::second_moment::prepared::PreparedR;
use crate::host::subspace::error_operand::ErrorOperand;

/// Below this share of tr(R E E^T), f is measured on rows.
pub(crate) const BY_ROWS_BELOW: f64 = 1e-4;
/// Below this share of tr(R E E^T), where no rows are held out, f is computed from P = E - A B.
const BY_RESIDUAL_BELOW: f64 = 1e-6;
/// The same limit for massive channels' share of that trace: a difference of f64 traces shows no
/// less.
const BELOW_IN_F64: f64 = 1e-14;
/// The rounding of a difference of f64 traces, relative to massive channels' share of them: its
/// products and sums add in orders that differ from CPU to CPU; 7 units were seen.
const TRACE_ROUNDING: f64 = 16.0 * f64::EPSILON;
/// A change of A or B by more than this, relative to its largest number, is multiplied in f64.
const CHANGED_IN_F32: f64 = 1.0 / 256.0;
/// Rows multiplied at a time, and columns of P formed at a time.
pub(crate) const ROWS: usize = 192;
const COLUMNS: usize = 256;

/// Measures the corrections of one layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Yardstick<'a> {
    compute: Compute<'a>,
    second_moment: &'a SecondMoment,
    /// R as the solve multiplied by it, where it did.
    r: Option<&'a PreparedR<'a>>,
    window: &'a Window,
    /// The weight of all rows seen.
    weight: f64,
    error: &'a ErrorOperand<'a>,
    /// tr(R E E^T).
    pub(crate) error_without: Trace,
    /// The absolute uncertainty of R's diagonal elements; empty where R is not gathered.
    diagonal_errors: &'a [f64],
    /// Whether f is measured on the rows of the window.
    by_rows: bool,
}

impl<'a> Yardstick<'a> {
    /// The yardstick of a layer with this E. `error_without` is tr(R E E^T); `diagonal_errors` are
    /// those of `SiteStatistics::diagonal_errors`; `r` is R where it was made ready for a solve.
    pub(crate) fn new(
        compute: Compute<'a>,
        statistics: &'a SiteStatistics,
        r: Option<&'a PreparedR<'a>>,
        error: &'a ErrorOperand<'a>,
        error_without: Trace,
        diagonal_errors: &'a [f64],
    ) -> Self {
        Self {
            compute,
            second_moment: &statistics.second_moment,
            r,
            window: &statistics.window,
            weight: statistics.weight,
            error,
            error_without: statistics.as_known(error_without),
            diagonal_errors,
            by_rows: false,
        }
    }

    /// The correction rounded to blocks of 8.5 bits a number, so that the loss under R is small.
    pub(crate) fn in_blocks(&self, correction: &Correction) -> InBlocks {
        correction.in_blocks(&RoundingMetric {
            compute: self.compute,
            second_moment: self.second_moment,
            diagonal: &self.second_moment.diagonal(self.weight),
        })
    }

    /// f of the unrounded correction. Its size decides in which way this layer is measured.
    pub(crate) fn choose(&mut self, correction: &Correction) -> f64 {
        self.by_rows = !self.second_moment.kind().is_traced();
        let f = self.of(&correction.factors, correction);
        // Statistics without rows (an imatrix) are taken as exact, down to the precision of a
        // difference of traces.
        let without_rows = self.window.all_rows().all(|rows| rows.rows() == 0);
        let least = if without_rows {
            BY_RESIDUAL_BELOW
        } else {
            BY_ROWS_BELOW
        };
        let Trace { massive, ordinary } = self.error_without;
        let shown = least * ordinary + BELOW_IN_F64 * massive.abs();
        if self.by_rows || f >= shown || !f.is_finite() {
            return f;
        }
        self.by_rows = true;
        self.of(&correction.factors, correction)
    }

    /// f of rounded factors; infinite when one of them overflowed.
    pub(crate) fn of_rounded(&self, rounded: &Rounded, correction: &Correction) -> f64 {
        let factors = rounded.factors(self.error.m(), self.error.n());
        factors.map_or(f64::INFINITY, |factors| self.of(&factors, correction))
    }

    /// f of factors that are close to the correction `near`, or equal to it.
    fn of(&self, factors: &Factors, near: &Correction) -> f64 {
        if self.by_rows {
            let by_rows = on_rows(self.compute, self.window, self.error.matrix, Some(factors));
            return by_rows.unwrap_or_else(|| self.on_residual(factors));
        }
        let da = &factors.a - &near.factors.a;
        let db = &factors.b - &near.factors.b;
        let changed = da.norm_max() > 0.0 || db.norm_max() > 0.0;
        let (mut ra, mut eb) = (near.ra.clone(), near.eb.clone());
        if changed {
            let is_small = |change: &Mat<f64>, of: &Mat<f64>| {
                change.norm_max() <= CHANGED_IN_F32 * of.norm_max()
            };
            let changed = match self.r.filter(|_| is_small(&da, &near.factors.a)) {
                Some(r) => Some(r.times_change(da.as_ref())),
                None => self.second_moment.apply(self.compute, da.as_ref()),
            };
            if let Some(changed) = changed {
                ra += changed;
            }
            eb += if is_small(&db, &near.factors.b) {
                self.error.times_v(db.as_ref())
            } else {
                self.error.times_v_f64(db.as_ref())
            };
        }
        let a_ra = product(factors.a.transpose(), ra.as_ref());
        let b_b = product(factors.b.transpose(), factors.b.as_ref());
        self.error_without.sum() - 2.0 * inner(&ra, &eb) + inner(&a_ra, &b_b)
    }

    /// tr(R P P^T) from P itself, for statistics without rows.
    fn on_residual(&self, factors: &Factors) -> f64 {
        let m = self.error.m();
        let error = self.error.matrix.values;
        let trace = |p: &[f32]| {
            let trace = self
                .second_moment
                .trace_with(self.compute, ColumnMajor::new(p, m));
            trace.unwrap_or_default().sum()
        };
        // A diagonal takes columns as they come; the bands of R are unpacked once for many columns.
        let at_once = self.second_moment.kind().is_whole();
        let (mut p, mut sum) = (Vec::new(), 0.0);
        for (group, values) in error.chunks(COLUMNS * m).enumerate() {
            let (first, count) = (group * COLUMNS, values.len() / m);
            let c = product(
                factors.a.as_ref(),
                factors.b.subrows(first, count).transpose(),
            );
            let c = (0..count).flat_map(|j| c.col(j).iter().copied().collect::<Vec<_>>());
            p.extend(values.iter().zip(c).map(|(e, c)| narrow(f64::from(*e) - c)));
            if !at_once {
                sum += trace(&p);
                p.clear();
            }
        }
        sum + trace(&p)
    }

    /// The uncertainty of this correction's f that follows from the uncertainty of R, and from the
    /// rounding of the traces whose difference it is.
    pub(crate) fn doubt(&self, correction: &Correction) -> f64 {
        let of_traces = if self.by_rows {
            0.0
        } else {
            TRACE_ROUNDING * self.error_without.massive.abs()
        };
        if self.diagonal_errors.iter().all(|error| *error <= 0.0) {
            return of_traces;
        }
        let Correction {
            factors: Factors { a, b },
            eb,
            ..
        } = correction;
        // |P_i|^2 = |E_i|^2 - 2 (E B^T)_i A_i^T + A_i B B^T A_i^T.
        let mut squares = vec![0.0; self.error.m()];
        for column in self.error.matrix.values.chunks_exact(squares.len()) {
            let numbers = squares.iter_mut().zip(column);
            numbers.for_each(|(sum, e)| *sum += f64::from(*e).powi(2));
        }
        let abb = product(a.as_ref(), product(b.transpose(), b.as_ref()).as_ref());
        for j in 0..a.ncols() {
            for (i, sum) in squares.iter_mut().enumerate() {
                *sum += a[(i, j)] * (abb[(i, j)] - 2.0 * eb[(i, j)]);
            }
        }
        let channels = self.diagonal_errors.iter().zip(squares);
        let of_r: f64 = channels
            .map(|(error, square)| error * square.max(0.0))
            .sum();
        of_r + of_traces
    }
}

/// The sum of ||y||^2 over rows, by their weights. `images` are the y of the rows from `first` on.
pub(crate) fn weighted_power(images: &Mat<f64>, rows: StoredRows<'_>, first: usize) -> f64 {
    if rows.weights.is_none() {
        return squared_lengths(images).sum();
    }
    let of_column = |column: faer::ColRef<'_, f64>| {
        let numbers = column.iter().enumerate();
        let squares = numbers.map(|(row, y)| rows.weight_of(first + row) * y * y);
        squares.sum::<f64>()
    };
    images.col_iter().map(of_column).sum()
}

/// tr(R W W^T): the mean of ||x W||^2 over the rows seen, to 1e-6, or over the rows held where R is
/// not gathered.
pub(crate) fn output_power(
    compute: Compute<'_>,
    statistics: &SiteStatistics,
    weight: ColumnMajor<'_>,
) -> f64 {
    doing(WorkKind::Measure, || {
        let power = statistics.second_moment.power_with(compute, weight);
        let on_rows = || on_rows(compute, &statistics.window, weight, None);
        power.or_else(on_rows).unwrap_or_default()
    })
}

/// tr(R E E^T): the mean of ||x E||^2 over the rows seen, or over the rows held where R is not
/// gathered.
pub(crate) fn error_power(
    compute: Compute<'_>,
    statistics: &SiteStatistics,
    error: ColumnMajor<'_>,
) -> Trace {
    doing(WorkKind::Measure, || {
        let trace = statistics.second_moment.trace_with(compute, error);
        trace.unwrap_or_else(|| Trace {
            massive: 0.0,
            ordinary: on_rows(compute, &statistics.window, error, None).unwrap_or_default(),
        })
    })
}

/// Mean of ||x (E - A B)||^2 over the rows held, by their weights; `None` when none are.
fn on_rows(
    compute: Compute<'_>,
    window: &Window,
    error: ColumnMajor<'_>,
    factors: Option<&Factors>,
) -> Option<f64> {
    let m = error.rows;
    let operand = compute.operand(error);
    let (mut sum, mut weight) = (0.0, 0.0);
    let mut wide = vec![0.0; ROWS * m];
    for piece in window.all_rows() {
        for first in (0..piece.rows()).step_by(ROWS) {
            let last = (first + ROWS).min(piece.rows());
            let values = &mut wide[..(last - first) * m];
            piece.widen(first * m..last * m, values);
            let x = Mat::from_fn(values.len() / m, m, |i, j| f64::from(values[i * m + j]));
            // rows x n
            let mut y = operand.times(x.as_ref());
            if let Some(factors) = factors {
                let xa = product(x.as_ref(), factors.a.as_ref());
                y -= product(xa.as_ref(), factors.b.transpose());
            }
            sum += weighted_power(&y, piece, first);
            weight += piece.slice(first..last).extent().weight;
        }
    }
    (weight > 0.0).then(|| sum / weight)
}
