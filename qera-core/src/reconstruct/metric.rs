//! Products with the statistic, which decides how large an output error counts.
//!
//! Columns are taken [`GROUP`] at a time: a row of the packed `R` is then read from memory once for
//! eight columns, and the scratch stays at `2 x 8` columns of length m whatever the rank.

use super::problem::{Problem, Statistic, packed_diagonal};
use crate::linalg::{Workspace, add_scaled, dot, dot_add_scaled};
use crate::packed::packed_rows;
use nalgebra::{DMatrixView, DMatrixViewMut};

/// How many columns are multiplied together.
pub(super) const GROUP: usize = 8;

/// Scratch for the products of a group of columns.
#[derive(Debug)]
pub(super) struct GroupScratch<'w> {
    /// The columns to multiply, of length m each.
    pub(super) group: &'w mut [f64],
    /// The products of the statistic with these columns.
    pub(super) image: &'w mut [f64],
}

impl<'w> GroupScratch<'w> {
    /// Number of `f64` that the scratch needs: `16 m`.
    pub(super) const fn len(in_features: usize) -> usize {
        in_features.saturating_mul(2 * GROUP)
    }

    pub(super) fn take(workspace: &mut Workspace<'w>, in_features: usize) -> Self {
        Self {
            group: workspace.take(in_features * GROUP),
            image: workspace.take(in_features * GROUP),
        }
    }
}

/// A symmetric positive semi-definite m x m matrix, as it is lent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Metric<'a> {
    /// Packed `R` with its off-diagonal part multiplied by `off_diagonal`: 1 is `R`, 0 its
    /// diagonal.
    Packed {
        packed: &'a [f64],
        off_diagonal: f64,
    },
    /// `diag(d)`.
    Diagonal(&'a [f64]),
    /// `diag(s_i^2)`.
    Squares(&'a [f64]),
    Identity,
}

impl<'a> Metric<'a> {
    /// The statistic itself, which every report uses.
    pub(super) const fn of(problem: &Problem<'a>) -> Self {
        match problem.statistic() {
            Statistic::Autocorrelation(packed) => Self::Packed {
                packed,
                off_diagonal: 1.0,
            },
            Statistic::Diagonal(diagonal) => Self::Diagonal(diagonal),
            Statistic::Identity => Self::Identity,
        }
    }

    /// The statistic as the exact method uses it, shrunk toward its diagonal.
    pub(super) const fn shrunk(problem: &Problem<'a>) -> Self {
        Self::of(problem).scaled_off_diagonal(1.0 - problem.shrinkage())
    }

    /// The diagonal of the statistic, its second moments.
    pub(super) const fn second_moments(problem: &Problem<'a>) -> Self {
        Self::of(problem).scaled_off_diagonal(0.0)
    }

    const fn scaled_off_diagonal(self, off_diagonal: f64) -> Self {
        match self {
            Self::Packed { packed, .. } => Self::Packed {
                packed,
                off_diagonal,
            },
            other => other,
        }
    }

    /// `Y = R X` for whole columns of length `m`.
    pub(super) fn apply(&self, m: usize, x: &[f64], y: &mut [f64]) {
        for (x, y) in x.chunks_exact(m).zip(y.chunks_exact_mut(m)) {
            match *self {
                Self::Packed {
                    packed,
                    off_diagonal,
                } => {
                    if off_diagonal > 0.0 {
                        y.fill(0.0);
                    } else {
                        for ((y, x), d) in y.iter_mut().zip(x).zip(packed_diagonal(packed, m)) {
                            *y = d * x;
                        }
                    }
                }
                Self::Diagonal(d) => {
                    for ((y, x), d) in y.iter_mut().zip(x).zip(d) {
                        *y = d * x;
                    }
                }
                Self::Squares(s) => {
                    for ((y, x), s) in y.iter_mut().zip(x).zip(s) {
                        *y = s * s * x;
                    }
                }
                Self::Identity => y.copy_from_slice(x),
            }
        }
        if let Self::Packed {
            packed,
            off_diagonal,
        } = *self
            && off_diagonal > 0.0
        {
            add_packed(packed, off_diagonal, m, x, y);
        }
    }
}

/// `Y += R X`, row by row of the packed triangle; each row serves its own and its mirrored part in
/// one pass.
fn add_packed(packed: &[f64], off_diagonal: f64, m: usize, x: &[f64], y: &mut [f64]) {
    for (i, row) in packed_rows(packed, m).enumerate() {
        let (diagonal, row) = (row[0], &row[1..]);
        for (x, y) in x.chunks_exact(m).zip(y.chunks_exact_mut(m)) {
            let sum = dot_add_scaled(row, &x[i + 1..], off_diagonal * x[i], &mut y[i + 1..]);
            y[i] += diagonal * x[i] + off_diagonal * sum;
        }
    }
}

/// `G = E^T R E` as an operator, never formed.
#[derive(Debug)]
pub(super) struct OutputMoment<'a, 'w, 's> {
    pub(super) error: DMatrixView<'a, f64>,
    pub(super) metric: Metric<'a>,
    pub(super) scratch: &'w mut GroupScratch<'s>,
}

impl OutputMoment<'_, '_, '_> {
    /// `Y = G X`.
    pub(super) fn apply(&mut self, x: &DMatrixView<'_, f64>, y: &mut DMatrixViewMut<'_, f64>) {
        let m = self.error.nrows();
        let mut first = 0;
        while first < x.ncols() {
            let columns = GROUP.min(x.ncols() - first);
            let group = &mut self.scratch.group[..columns * m];
            let image = &mut self.scratch.image[..columns * m];
            multiply(&self.error, &x.columns(first, columns), group);
            self.metric.apply(m, group, image);
            for (j, e) in self.error.column_iter().enumerate() {
                for (image, c) in image.chunks_exact(m).zip(first..) {
                    y[(j, c)] = dot(e.as_slice(), image);
                }
            }
            first += columns;
        }
    }
}

/// `out = E X` for a few columns; one pass over `E`.
pub(super) fn multiply(error: &DMatrixView<'_, f64>, x: &DMatrixView<'_, f64>, out: &mut [f64]) {
    out.fill(0.0);
    for (j, e) in error.column_iter().enumerate() {
        for (c, out) in out.chunks_exact_mut(error.nrows()).enumerate() {
            add_scaled(x[(j, c)], e.as_slice(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_multiplies_as_its_full_matrix() {
        const M: usize = 3;
        let packed = [2.0, 0.5, -1.0, 3.0, 0.25, 4.0];
        let diagonal = [2.0, 3.0, 4.0];
        let roots = [1.0, 2.0, 0.0];
        let x = [1.0, -2.0, 3.0, 0.5, 0.0, 1.0];
        let of = |off_diagonal| Metric::Packed {
            packed: &packed,
            off_diagonal,
        };
        let full = |o: f64| {
            [
                [2.0, 0.5 * o, -o],
                [0.5 * o, 3.0, 0.25 * o],
                [-o, 0.25 * o, 4.0],
            ]
        };
        let squares = [[1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0; 3]];
        let identity = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        for (metric, full) in [
            (of(1.0), full(1.0)),
            (of(0.25), full(0.25)),
            (of(0.0), full(0.0)),
            (Metric::Diagonal(&diagonal), full(0.0)),
            (Metric::Squares(&roots), squares),
            (Metric::Identity, identity),
        ] {
            let mut y = [f64::NAN; 2 * M];
            metric.apply(M, &x, &mut y);
            for (x, y) in x.chunks_exact(M).zip(y.chunks_exact(M)) {
                for (row, y) in full.iter().zip(y) {
                    assert!((dot(row, x) - y).abs() < 1e-15, "{metric:?}");
                }
            }
        }
    }
}
