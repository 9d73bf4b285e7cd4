//! R in packed f64, and the exact quantities that are measured with it: R X, tr(R P P^T).
//!
//! R is never expanded to a full f64 matrix: bands of rows are, one at a time.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use qera_core::packed::packed_offset;

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::dense::product;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::rank_update::{Scratch, trace_products};
use crate::host::rounding::narrow;
use crate::host::second_moment::massive::massive_of;

/// Rows of R that are unpacked at a time.
pub(crate) const BAND: usize = 64;
/// The number of sums among which bands are shared out where R is large. Cores can share the work,
/// and the order of additions stays.
pub(crate) const SUMS: usize = 4;
/// From this width on, the work on a matrix is shared between threads.
const SHARED_FROM: usize = 1024;
/// Up to this many operations a trace is computed in f64: some milliseconds.
const F64_FLOPS_MAX: usize = 1 << 28;
/// Side of the squares in which a matrix is transposed.
const SQUARE: usize = 32;

/// Columns of P at a time where channels are massive.
const TRACED_COLUMNS: usize = 256;

/// tr(R P P^T) in two parts of different precision.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trace {
    /// The part of massive channels, among themselves and with the others: exact to f64.
    pub(crate) massive: f64,
    /// The part of the other channels: exact to f32 products.
    pub(crate) ordinary: f64,
}

impl Trace {
    /// The whole trace.
    pub(crate) fn sum(self) -> f64 {
        // Rounding may leave -1e-17 where the true value is 0.
        (self.massive + self.ordinary).max(0.0)
    }
}

/// Whether the trace of an m x n matrix is taken in f64.
pub(crate) const fn is_traced_in_f64(m: usize, n: usize) -> bool {
    m.saturating_mul(m).saturating_mul(n) <= F64_FLOPS_MAX
}

/// A packed symmetric matrix, m x m.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedR<'a> {
    values: &'a [f64],
    m: usize,
}

impl<'a> PackedR<'a> {
    pub(crate) const fn new(values: &'a [f64], m: usize) -> Self {
        Self { values, m }
    }

    pub(crate) const fn m(&self) -> usize {
        self.m
    }

    /// Its numbers, upper triangle by rows.
    pub(crate) const fn values(&self) -> &'a [f64] {
        self.values
    }

    /// The diagonal as it was gathered, with the rounding of its f32 products.
    pub(crate) fn diagonal(&self) -> Vec<f64> {
        (0..self.m)
            .map(|i| self.values[packed_offset(self.m, i)])
            .collect()
    }

    /// Row i from its diagonal element on.
    pub(crate) fn row(&self, i: usize) -> &'a [f64] {
        let start = packed_offset(self.m, i);
        &self.values[start..start + self.m - i]
    }

    /// R / `scale` as a full f32 matrix, by columns.
    pub(crate) fn to_f32(self, compute: Compute<'_>, scale: f64) -> PageVec<f32> {
        let m = self.m;
        let mut full = PageVec::unwritten(m * m);
        let unit = 1.0 / scale;
        let bands = full.chunks_mut(m * BAND).enumerate().collect();
        compute
            .cores
            .spread(bands, |(band, columns): (_, &mut [f32])| {
                let first = band * BAND;
                for (c, column) in columns.chunks_exact_mut(m).enumerate() {
                    let j = first + c;
                    for (to, value) in column[j..].iter_mut().zip(self.row(j)) {
                        *to = narrow(value * unit);
                    }
                }
                // What lies above the diagonal stands in the rows before, a run in each.
                let last = first + columns.len() / m;
                for top in (0..last).step_by(SQUARE) {
                    for left in (first..last).step_by(SQUARE) {
                        let (right, bottom) = ((left + SQUARE).min(last), (top + SQUARE).min(last));
                        let run = |i: usize| {
                            let from = left.max(i + 1);
                            let from_diagonal = self.row(i).get(from - i..right.saturating_sub(i));
                            (from - left, from_diagonal.unwrap_or_default())
                        };
                        let mut square = [[0.0_f32; SQUARE]; SQUARE];
                        for (i, row) in (top..bottom).zip(&mut square) {
                            let (skip, run) = run(i);
                            for (to, value) in row[skip.min(SQUARE)..].iter_mut().zip(run) {
                                *to = narrow(value * unit);
                            }
                        }
                        for j in left..right {
                            let end = bottom.min(j);
                            if top < end {
                                let column = &mut columns[(j - first) * m..][top..end];
                                for (to, row) in column.iter_mut().zip(&square) {
                                    *to = row[j - left];
                                }
                            }
                        }
                    }
                }
            });
        full
    }

    /// R X in f64, X being m x b: 2 m^2 b flops, each element of R read once.
    pub(crate) fn times(&self, compute: Compute<'_>, x: MatRef<'_, f64>) -> Mat<f64> {
        let there = compute.device.and_then(|d| d.r_times(self.values, x));
        if let Some(there) = there {
            return there;
        }
        let (m, b) = (self.m, x.ncols());
        let count = if m < SHARED_FROM { 1 } else { SUMS };
        let mut sums: Vec<Mat<f64>> = (0..count).map(|_| Mat::zeros(m, b)).collect();
        let pieces = sums.iter_mut().enumerate().collect();
        compute
            .cores
            .spread(pieces, |(index, sum): (usize, &mut Mat<f64>)| {
                let mut memory = vec![0.0; BAND * m];
                for first in (index * BAND..m).step_by(count * BAND) {
                    self.add_band(first, x, sum, &mut memory);
                }
            });
        let mut sums = sums.into_iter();
        let first = sums.next().unwrap_or_else(|| Mat::zeros(m, b));
        sums.fold(first, |total, sum| total + sum)
    }

    /// Adds the contribution of a band of rows: from their diagonal elements on, and of the columns
    /// that mirror them.
    fn add_band(&self, first: usize, x: MatRef<'_, f64>, sum: &mut Mat<f64>, memory: &mut [f64]) {
        let (height, length) = (BAND.min(self.m - first), self.m - first);
        let band = &mut memory[..height * length];
        for (r, row) in band.chunks_exact_mut(length).enumerate() {
            row[r..].copy_from_slice(self.row(first + r));
        }
        for r in 1..height {
            for c in 0..r {
                band[r * length + c] = band[c * length + r];
            }
        }
        let band = MatRef::from_row_major_slice(band, height, length);
        matmul(
            sum.as_mut().subrows_mut(first, height),
            Accum::Add,
            band,
            x.subrows(first, length),
            1.0,
            Par::Seq,
        );
        matmul(
            sum.as_mut().subrows_mut(first + height, length - height),
            Accum::Add,
            band.subcols(height, length - height).transpose(),
            x.subrows(first, height),
            1.0,
            Par::Seq,
        );
    }

    /// tr(R P P^T) for P (m x n, by columns, f32): m^2 n flops. Where channels are massive, what
    /// they give is taken in f64 and told apart from the rest.
    pub(crate) fn trace_with(&self, compute: Compute<'_>, p: ColumnMajor<'_>) -> Trace {
        self.trace(compute, p, true)
    }

    /// The same by f32 products whatever the size, for a figure from which nothing is subtracted:
    /// to 1e-6.
    pub(crate) fn power_with(&self, compute: Compute<'_>, p: ColumnMajor<'_>) -> f64 {
        self.trace(compute, p, false).sum()
    }

    fn trace(&self, compute: Compute<'_>, p: ColumnMajor<'_>, exactly: bool) -> Trace {
        let in_f64 = |p: ColumnMajor<'_>| exactly && is_traced_in_f64(self.m, p.columns());
        let ordinary = |p: ColumnMajor<'_>| match in_f64(p) {
            true => self.ordinary_trace_in_f64(p),
            false => self.ordinary_trace(compute, p),
        };
        let massive = massive_of(&self.diagonal());
        let mut trace = Trace::default();
        if massive.is_empty() {
            trace.ordinary = ordinary(p);
            return trace;
        }
        for values in p.values.chunks(self.m * TRACED_COLUMNS) {
            trace.massive += self.massive_trace(&massive, ColumnMajor::new(values, self.m));
            let mut others = PageVec::unwritten(values.len());
            others.copy_from_slice(values);
            for column in others.chunks_exact_mut(self.m) {
                massive.iter().for_each(|&i| column[i] = 0.0);
            }
            trace.ordinary += ordinary(ColumnMajor::new(&others, self.m));
        }
        trace
    }

    /// The part of tr(R P P^T) that rows or columns of massive channels have: 2 c m n flops.
    fn massive_trace(&self, massive: &[usize], p: ColumnMajor<'_>) -> f64 {
        let (m, n) = (self.m, p.columns());
        let number = |i: usize, j: usize| f64::from(p.values[j * m + i]);
        let wide = Mat::from_fn(m, n, number);
        let own = Mat::from_fn(massive.len(), n, |c, j| number(massive[c], j));
        let gram = product(wide.as_ref(), own.transpose());
        let mut trace = 0.0;
        for (&i, column) in massive.iter().zip(gram.col_iter()) {
            for (j, gram) in column.iter().enumerate() {
                let (first, second) = (i.min(j), i.max(j));
                // A pair of massive channels would be counted twice, once by either.
                let times = if massive.binary_search(&j).is_ok() {
                    1.0
                } else {
                    2.0
                };
                trace += times * self.row(first)[second - first] * gram;
            }
        }
        trace
    }

    /// Its trace with P, no channel being told apart: off the diagonal by f32 products, whose
    /// errors average out, below 1e-9 of the trace in large matrices.
    fn ordinary_trace(&self, compute: Compute<'_>, p: ColumnMajor<'_>) -> f64 {
        let there = compute
            .device
            .and_then(|device| device.r_trace(self.values, p.values));
        let here = || trace_products(compute, p, self.values, &mut Scratch::default());
        there.unwrap_or_else(here)
    }

    /// The same in f64, where that is soon done.
    fn ordinary_trace_in_f64(&self, p: ColumnMajor<'_>) -> f64 {
        let m = self.m;
        let p = p.values;
        let mut gram = vec![0.0_f64; BAND * m];
        let mut wide = PageVec::unwritten(p.len());
        wide.iter_mut()
            .zip(p)
            .for_each(|(to, from)| *to = f64::from(*from));
        let p = MatRef::from_column_major_slice(&wide, m, wide.len() / m);
        let mut trace = 0.0;
        for first in (0..m).step_by(BAND) {
            let (height, length) = (BAND.min(m - first), m - first);
            let gram = &mut gram[..height * length];
            let below = p.subrows(first, length);
            matmul(
                MatMut::from_column_major_slice_mut(gram, length, height),
                Accum::Replace,
                below,
                below.subrows(0, height).transpose(),
                1.0,
                Par::Seq,
            );
            for (c, column) in gram.chunks_exact(length).enumerate() {
                let row = self.row(first + c);
                let products = row[1..].iter().zip(&column[c + 1..]);
                let off_diagonal: f64 = products.map(|(r, p)| r * p).sum();
                trace += row[0] * column[c] + 2.0 * off_diagonal;
            }
        }
        // Rounding may leave -1e-17 where the true value is 0.
        trace.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cores::Cores;
    use crate::host::kernels::Kernel;
    use crate::host::transpose::scaled_transpose;

    #[test]
    fn products_and_traces_match_the_definition() {
        let cores = Cores::new(2);
        let compute = Compute::new(Kernel::best(), &cores);
        for (m, n) in [(150, 7), (1030, 3)] {
            let r = |i: usize, j: usize| {
                1.0 / (1.0 + i as f64 + j as f64) + f64::from(u8::from(i == j))
            };
            let packed: Vec<f64> = (0..m).flat_map(|i| (i..m).map(move |j| r(i, j))).collect();
            let p: Vec<f32> = (0..m * n)
                .map(|i| narrow((i as f64 * 0.37).sin()))
                .collect();
            let packed_r = PackedR::new(&packed, m);
            let wide = Mat::from_fn(m, n, |i, j| f64::from(p[j * m + i]));
            let product = packed_r.times(compute, wide.as_ref());
            let mut trace = 0.0;
            for j in 0..n {
                for i in 0..m {
                    let expected: f64 = (0..m).map(|l| r(i, l) * wide[(l, j)]).sum();
                    assert!((product[(i, j)] - expected).abs() < 1e-11);
                    trace += wide[(i, j)] * expected;
                }
            }
            let p_columns = ColumnMajor::new(&p, m);
            let traced = packed_r.trace_with(compute, p_columns).sum();
            assert!((traced / trace - 1.0).abs() < 1e-9);
            let power = packed_r.power_with(compute, p_columns);
            assert!((power / trace - 1.0).abs() < 1e-6);
            let full = packed_r.to_f32(compute, 2.0);
            for (i, j) in [(3, 100), (100, 3), (0, 149), (149, 0), (70, 70), (64, 63)] {
                assert!((f64::from(full[i * m + j]) - r(i, j) / 2.0).abs() < 1e-7);
            }
            let transposed = scaled_transpose(compute, ColumnMajor::new(&p, m), 2.0);
            for (i, j) in [(0, 0), (149, n - 1), (33, 2)] {
                assert!((transposed[i * n + j] - 2.0 * p[j * m + i]).abs() < f32::EPSILON);
            }
        }
    }
}
