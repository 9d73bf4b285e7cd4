//! A sketch of the output errors d = x E of one layer, which stands for G = E[d^T d] where R is not
//! gathered. What it is, and its bounds, are derived at `qera_core::statistics::ErrorSketch`; this
//! is the same by matrix products.
//!
//! Of a block of b rows, r = l - 1 + b in all: d by f32 products (2 m n b flops), then in f64 the
//! Gram matrix of the stack Y (r^2 n), its l leading eigenvectors (some 6 r^3), and their images
//! (2 (l - 1) r n). Where n < r it is Y^T Y (n^2 r), whose eigenvectors are the directions
//! themselves. The numbers of a shrink are those of the core up to the rounding of d and of
//! eigenvectors.

use faer::linalg::matmul::matmul as product_into;
use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use qera_core::statistics::{ErrorSketch, OptimumInterval, SketchTotals, StatisticError};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::dense::Eigenpairs;
use crate::host::kernels::page_vec::PageVec;
use crate::host::kernels::stored::StoredRows;
use crate::host::rounding::narrow;
use crate::host::solve_error::SolveError;
use crate::host::subspace::small_top::top_eigen;

/// How many rows are shrunk in at a time. With fewer, the eigenproblem is a larger part of the
/// work.
pub const SKETCH_ROWS: usize = 256;

/// The operations of an eigenproblem of r rows, as a multiple of r^3.
const EIGEN_FLOPS: f64 = 15.0;

/// How many columns are turned at a time.
const TILE: usize = 16;

/// The sketch of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputSketch {
    /// The l - 1 rows of n numbers, the longest first.
    rows: PageVec<f32>,
    out_features: usize,
    totals: SketchTotals,
}

impl OutputSketch {
    /// A sketch that has seen no row; `kept` rows survive a shrink.
    #[must_use]
    pub fn new(kept: usize, out_features: usize) -> Self {
        Self {
            rows: PageVec::zeroed(kept * out_features),
            out_features,
            totals: SketchTotals::default(),
        }
    }

    /// A sketch as it was saved.
    ///
    /// # Errors
    /// The saved numbers are impossible for a sketch.
    pub(crate) fn resume(
        mut rows: PageVec<f32>,
        out_features: usize,
        totals: SketchTotals,
    ) -> Result<Self, StatisticError> {
        ErrorSketch::resume(&mut rows, out_features, totals)?;
        Ok(Self {
            rows,
            out_features,
            totals,
        })
    }

    /// Bytes of `kept` rows.
    #[must_use]
    pub(crate) const fn bytes(kept: usize, out_features: usize) -> u64 {
        (kept * out_features * size_of::<f32>()) as u64
    }

    /// Bytes that a fold of so many rows needs beside E: the rows in f64, d, the stack, and what
    /// replaces the rows.
    #[must_use]
    pub(crate) const fn fold_bytes(in_features: usize, out_features: usize, kept: usize) -> usize {
        let stack = kept + SKETCH_ROWS;
        let wide = SKETCH_ROWS * in_features + out_features * (SKETCH_ROWS + stack + kept);
        let small = 6 * Self::eigen_size(out_features, kept).pow(2);
        (wide + small) * size_of::<f64>() + SKETCH_ROWS * in_features * size_of::<f32>()
    }

    /// The size of the eigenproblem of a shrink: the shorter side of the stack.
    #[must_use]
    pub(crate) const fn eigen_size(out_features: usize, kept: usize) -> usize {
        let stack = kept + SKETCH_ROWS;
        if out_features < stack {
            out_features
        } else {
            stack
        }
    }

    /// Operations of a row: those of its output errors, and its part of a shrink.
    #[must_use]
    pub(crate) fn row_flops(in_features: usize, out_features: usize, kept: usize) -> f64 {
        let size = Self::eigen_size(out_features, kept) as f64;
        let eigen = EIGEN_FLOPS * size.powi(3) / SKETCH_ROWS as f64;
        Self::product_flops(in_features, out_features, kept) + eigen
    }

    /// Operations of a row without its part of an eigenproblem. Products in f64 count twice.
    #[must_use]
    pub(crate) fn product_flops(in_features: usize, out_features: usize, kept: usize) -> f64 {
        let stack = kept + SKETCH_ROWS;
        let size = Self::eigen_size(out_features, kept);
        // The Gram matrix, and the images of eigenvectors where these are no directions yet.
        let gram = (size * size * out_features.max(stack)) as f64;
        let images = match size < stack {
            true => 0.0,
            false => 2.0 * (kept * stack * out_features) as f64,
        };
        2.0 * (in_features * out_features) as f64 + 2.0 * (gram + images) / SKETCH_ROWS as f64
    }

    /// Shrinks the output errors of these rows in, as one block; `error` is E, m x n by columns.
    ///
    /// # Errors
    /// [`SolveError::Overflow`] for errors that are not finite, [`SolveError::NoConvergence`]; the
    /// sketch is then as it was.
    pub fn fold(
        &mut self,
        compute: Compute<'_>,
        error: ColumnMajor<'_>,
        rows: StoredRows<'_>,
    ) -> Result<(), SolveError> {
        let (m, count) = (rows.in_features, rows.rows());
        let new = rows.extent().weight;
        if count == 0 || new <= 0.0 {
            return Ok(());
        }
        let errors = {
            let values = rows.widened();
            let x = Mat::from_fn(count, m, |i, j| f64::from(values[i * m + j]));
            compute.operand(error).times(x.as_ref())
        };
        let weight = self.totals.weight + new;
        let roots = (0..count).map(|i| (rows.weight_of(i) / weight).sqrt());
        let shrunk = self.shrink(
            self.totals.weight / weight,
            &errors,
            &roots.collect::<Vec<_>>(),
        )?;
        let kept = self.totals.weight / weight;
        self.totals = SketchTotals {
            weight,
            trace: kept * self.totals.trace + shrunk.trace_below,
            shrunk: kept * self.totals.shrunk + shrunk.delta,
        };
        Ok(())
    }

    /// Takes in what another sketch has seen.
    ///
    /// # Errors
    /// [`SolveError::NoConvergence`]; the sketch is then as it was.
    pub fn merge(&mut self, other: &Self) -> Result<(), SolveError> {
        let (old, new) = (self.totals, other.totals);
        if new.weight <= 0.0 {
            return Ok(());
        }
        let weight = old.weight + new.weight;
        let (own, others) = (old.weight / weight, new.weight / weight);
        let below = other.matrix();
        let shrunk = self.shrink(own, &below, &vec![others.sqrt(); below.nrows()])?;
        self.totals = SketchTotals {
            weight,
            trace: own * old.trace + others * new.trace,
            shrunk: own * old.shrunk + others * new.shrunk + shrunk.delta,
        };
        Ok(())
    }

    /// Stacks rows below the kept ones, each times the root of its share, and shrinks the stack to
    /// as many as were kept.
    fn shrink(
        &mut self,
        kept_share: f64,
        below: &Mat<f64>,
        roots: &[f64],
    ) -> Result<Shrunk, SolveError> {
        let (kept, n) = (self.kept(), self.out_features);
        let (r, own) = (kept + below.nrows(), kept_share.sqrt());
        // By rows, as the sketch lies.
        let mut stack = PageVec::unwritten(r * n);
        let (above, rest) = stack.split_at_mut(kept * n);
        let pairs = above.iter_mut().zip(self.rows.iter());
        pairs.for_each(|(to, from)| *to = own * f64::from(*from));
        let mut rest = MatMut::from_row_major_slice_mut(rest, below.nrows(), n);
        for first in (0..n).step_by(TILE) {
            let width = TILE.min(n - first);
            let from = below.subcols(first, width);
            for (i, root) in roots.iter().enumerate() {
                for j in 0..width {
                    rest[(i, first + j)] = root * from[(i, j)];
                }
            }
        }
        let stack = MatRef::from_row_major_slice(&stack, r, n);
        let trace_below = stack.subrows(kept, r - kept).squared_norm_l2();
        let delta = self.keep_longest(stack)?;
        Ok(Shrunk { delta, trace_below })
    }

    /// Replaces the rows by the longest directions of the stack, each shorter by the square of the
    /// first that does not survive, and returns that. The eigenproblem is of the shorter side of
    /// the stack: of its rows, whose images the directions are, or of its columns.
    fn keep_longest(&mut self, stack: MatRef<'_, f64>) -> Result<f64, SolveError> {
        let (kept, r, n) = (self.kept(), stack.nrows(), stack.ncols());
        let by_columns = n < r;
        let side = if by_columns { stack.transpose() } else { stack };
        let Eigenpairs {
            mut vectors,
            values,
        } = top_eigen(&gram(side), kept + 1)?;
        let noise = r as f64 * f64::EPSILON * values[0].max(0.0);
        let first_lost = values.get(kept).copied().unwrap_or(0.0);
        let delta = if first_lost > noise { first_lost } else { 0.0 };
        for (column, &value) in vectors.col_iter_mut().zip(&values) {
            let left = if value > noise { value - delta } else { 0.0 };
            let squared = match left > 0.0 {
                // An image has the length of the direction already.
                true if !by_columns => left / value,
                true => left,
                false => 0.0,
            };
            let scale = squared.sqrt();
            column.iter_mut().for_each(|x| *x *= scale);
        }
        let found = vectors.ncols().min(kept);
        let directions = vectors.subcols(0, found).transpose();
        let mut rows = PageVec::unwritten(found * n);
        let mut to = MatMut::from_row_major_slice_mut(&mut rows, found, n);
        if by_columns {
            to.copy_from(directions);
        } else {
            product_into(to, Accum::Replace, directions, stack, 1.0, Par::Seq);
        }
        self.rows.fill(0.0);
        let pairs = self.rows.iter_mut().zip(rows.iter());
        pairs.for_each(|(to, from)| *to = narrow(*from));
        Ok(delta)
    }

    /// The matrix S of the sketch: kept x n.
    #[must_use]
    pub fn matrix(&self) -> Mat<f64> {
        let n = self.out_features;
        Mat::from_fn(self.kept(), n, |i, j| f64::from(self.rows[i * n + j]))
    }

    /// How many rows survive a shrink, l - 1.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.rows.len() / self.out_features.max(1)
    }

    /// The numbers of the rows, row-major.
    #[must_use]
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Weight, trace and Delta.
    #[must_use]
    pub const fn totals(&self) -> SketchTotals {
        self.totals
    }

    /// The interval in which the smallest error of a rank lies.
    ///
    /// # Errors
    /// The numbers are impossible for a sketch. This would be a defect.
    pub fn optimum(&self, rank: usize) -> Result<OptimumInterval, StatisticError> {
        let mut rows = self.rows.to_vec();
        let sketch = ErrorSketch::resume(&mut rows, self.out_features, self.totals)?;
        Ok(sketch.optimum(rank))
    }
}

/// What a shrink took away, and the trace of the block.
struct Shrunk {
    /// The amount taken from every direction.
    delta: f64,
    /// The sum of the squares of the rows stacked below, each by its share.
    trace_below: f64,
}

/// Y Y^T, both triangles.
fn gram(y: MatRef<'_, f64>) -> Mat<f64> {
    let r = y.nrows();
    let mut gram = Mat::zeros(r, r);
    matmul(
        gram.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        y,
        BlockStructure::Rectangular,
        y.transpose(),
        BlockStructure::Rectangular,
        1.0,
        Par::Seq,
    );
    for j in 0..r {
        for i in 0..j {
            gram[(i, j)] = gram[(j, i)];
        }
    }
    gram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cores::Cores;
    use crate::host::dense::{eigen, product};
    use crate::host::kernels::Kernel;
    use crate::host::kernels::row_weights::RowWeights;
    use qera_core::pseudo_random::SplitMix64;
    use qera_core::rows::Rows;
    use qera_core::statistics::{SketchRoom, error_sketch_workspace_len};

    const M: usize = 40;
    const N: usize = 33;
    const KEPT: usize = 9;
    /// Rows of a block, and blocks.
    const BLOCK: usize = 24;
    const BLOCKS: usize = 6;

    /// Numbers whose size falls with the channel.
    fn numbers(seed: u64, count: usize, fall: f64) -> Vec<f32> {
        let mut sequence = SplitMix64::new(seed);
        let size = |i: usize| (1.0 + (i % M) as f64).powf(-fall);
        (0..count)
            .map(|i| narrow(sequence.next_symmetric() * size(i)))
            .collect()
    }

    fn weights() -> RowWeights {
        let weight = |i: usize| [1.0, 0.5, 3.0][i % 3];
        RowWeights::new((0..BLOCK).map(weight).collect())
    }

    /// By the host, block by block.
    fn folded(kernel: Kernel, error: &[f32], blocks: core::ops::Range<usize>) -> OutputSketch {
        let cores = Cores::new(1);
        let compute = Compute::new(kernel, &cores);
        let (x, weights) = (numbers(1, BLOCKS * BLOCK * M, 0.7), weights());
        let mut sketch = OutputSketch::new(KEPT, error.len() / M);
        for block in blocks {
            let rows = &x[block * BLOCK * M..][..BLOCK * M];
            let rows = StoredRows::floats(rows, M).weighted(Some(&weights));
            sketch
                .fold(compute, ColumnMajor::new(error, M), rows)
                .unwrap();
        }
        sketch
    }

    fn moment(sketch: &OutputSketch) -> Mat<f64> {
        let s = sketch.matrix();
        product(s.transpose(), s.as_ref())
    }

    /// The core's loops and rotations come to the same sketch, by the rows of the stack and, where
    /// a layer has fewer outputs than these are, by its columns.
    #[test]
    fn it_is_the_sketch_of_the_core() {
        const { assert!(N >= KEPT + BLOCK) };
        for n in [N, N - 10, KEPT - 2] {
            is_that_of_the_core(n);
        }
    }

    fn is_that_of_the_core(n: usize) {
        let error = numbers(2, M * n, 0.0);
        let (mut state, x) = (vec![0.0; KEPT * n], numbers(1, BLOCKS * BLOCK * M, 0.7));
        let mut core = ErrorSketch::new(&mut state, n).unwrap();
        let (mut errors, mut columns) = (vec![0.0; BLOCK * n], vec![0.0; M]);
        let mut workspace = vec![0.0; error_sketch_workspace_len(KEPT, BLOCK)];
        let weights = weights();
        for rows in x.chunks_exact(BLOCK * M) {
            let mut room = SketchRoom {
                errors: &mut errors,
                columns: &mut columns,
                workspace: &mut workspace,
            };
            let rows = Rows::new(rows, M).unwrap();
            let rows = rows.weighted(weights.lend().values()).unwrap();
            let mut of = |first: usize, to: &mut [f32]| {
                to.copy_from_slice(&error[first * M..][..to.len()]);
            };
            core.update(&rows, &mut of, &mut room).unwrap();
        }
        let totals = core.totals();
        let core = OutputSketch::resume(state.into(), n, totals).unwrap();
        for kernel in Kernel::available() {
            let host = folded(kernel, &error, 0..BLOCKS);
            let near = |a: f64, b: f64| (a - b).abs() <= 1e-5 * totals.trace;
            assert!((host.totals().weight - totals.weight).abs() < 1e-9);
            assert!(near(host.totals().trace, totals.trace), "{}", kernel.name());
            assert!(near(host.totals().shrunk, totals.shrunk));
            assert!(
                totals.shrunk > 1e-3 * totals.trace || n < KEPT,
                "nothing was shrunk"
            );
            let gap = (moment(&host) - moment(&core)).norm_l2();
            assert!(gap <= 1e-5 * totals.trace, "{}: {gap:e}", kernel.name());
            let (a, b) = (host.optimum(4).unwrap(), core.optimum(4).unwrap());
            assert!(near(a.least, b.least) && near(a.most, b.most));
        }
    }

    /// Two parts lose no more than their bounds say, of G itself.
    #[test]
    fn merged_parts_are_within_their_bounds() {
        let error = numbers(2, M * N, 0.0);
        let kernel = Kernel::best();
        let mut merged = folded(kernel, &error, 0..4);
        merged.merge(&folded(kernel, &error, 4..BLOCKS)).unwrap();
        let x = numbers(1, BLOCKS * BLOCK * M, 0.7);
        let (weights, e) = (weights(), ColumnMajor::new(&error, M));
        let mut g = Mat::<f64>::zeros(N, N);
        let mut all = 0.0;
        for (i, row) in x.chunks_exact(M).enumerate() {
            let weight = f64::from(weights.lend().values()[i % BLOCK]);
            let dot = |j: usize| {
                let column = &e.values[j * M..][..M];
                let terms = row.iter().zip(column);
                terms
                    .map(|(x, e)| f64::from(*x) * f64::from(*e))
                    .sum::<f64>()
            };
            let d: Vec<f64> = (0..N).map(dot).collect();
            g += Mat::from_fn(N, N, |i, j| weight * d[i] * d[j]);
            all += weight;
        }
        g *= faer::Scale(1.0 / all);
        let trace: f64 = (0..N).map(|i| g[(i, i)]).sum();
        let totals = merged.totals();
        assert!((totals.trace - trace).abs() <= 1e-6 * trace);
        let lost = eigen(&(g - moment(&merged))).unwrap().values;
        assert!(lost[0] <= totals.shrunk + 1e-6 * trace);
        assert!(lost[N - 1] >= -1e-6 * trace);
        // A sketch of no row changes nothing.
        let before = merged.clone();
        merged.merge(&OutputSketch::new(KEPT, N)).unwrap();
        assert!(merged == before);
    }

    /// What is not finite leaves no trace.
    #[test]
    fn errors_that_overflow_are_refused() {
        let mut error = numbers(2, M * N, 0.0);
        let mut sketch = folded(Kernel::best(), &error, 0..2);
        let before = sketch.clone();
        error[7] = f32::MAX;
        let rows = vec![1e30; BLOCK * M];
        let cores = Cores::new(1);
        let compute = Compute::new(Kernel::best(), &cores);
        let refused = sketch.fold(
            compute,
            ColumnMajor::new(&error, M),
            StoredRows::floats(&rows, M),
        );
        assert_eq!(refused, Err(SolveError::Overflow));
        assert!(sketch == before);
    }
}
