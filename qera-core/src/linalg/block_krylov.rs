//! Leading eigenpairs of a symmetric positive semi-definite operator by restarted block Krylov iteration.
//!
//! **Derivation.** The space spanned by `X, G X, G^2 X, ...` holds every `p(G) X`, so it holds the best polynomial filter of
//! its degree: its error falls like a Chebyshev polynomial in the gap, where subspace iteration (only `G^q X`) falls like a
//! power. On real layers `l_{k+1} / l_k` is 0.95 to 0.99, and that difference is what makes the solve cheap. Each block `G X_j`
//! is orthogonalised against the whole basis `K` (twice: once is not enough, and more is not needed; Kahan and Parlett), and
//! the eigenpairs of `H = K^T G K` in `f64` are the Rayleigh-Ritz values and vectors.
//!
//! When the basis is full it is compressed to the leading `k + 8` Ritz vectors *and the block that would have come next*, and
//! grown again (a thick restart: Wu and Simon 2000; Stewart 2001). All Ritz residuals lie in that block, so the compressed
//! basis is again a Krylov space and no product is thrown away; a plain restart from Ritz vectors would repeat one product
//! per kept vector.
//!
//! A column that vanishes in the orthogonalisation (an invariant subspace: low rank, or an eigenvalue of higher multiplicity
//! than the block) is replaced by a fresh pseudo-random one, so the basis stays orthonormal and the search goes on elsewhere.
//! When `4 (k + 8) >= n` the whole matrix is formed instead and decomposed: exact, and no dearer.
//!
//! **Cost.** At k = 32 a cold start applies 5 blocks of `k/2 + 8` columns in the first cycle and 4 in each later one; a warm
//! start applies 3 blocks of its own width, then 1 a cycle. A basis of `c = 4 (k + 8)` columns costs `O(n c^2)` a cycle for the
//! orthogonalisation and `O(c^3)` for `H`, small beside the products for the layers this is meant for.
//!
//! **Error bound.** With residual `r = ||G V - V L||_F` and gap `g = l_k - l_{k+1}`, the captured sum is at most `r^2 / g` below
//! the true one (Mathias 1998): it converges twice as fast as the vectors. The stop test watches that sum.

use core::fmt;

use nalgebra::{DMatrixView, DMatrixViewMut};

use super::columns::{add_scaled, dot, squared_norm};
use super::jacobi_eigen::{JacobiEigenError, jacobi_eigen, jacobi_eigen_workspace_len};
use super::shape::{ShapeMismatch, expect_shape};
use super::workspace::{Workspace, WorkspaceTooSmall};
use super::{JACOBI_MAX_SWEEPS, block_start::Generator};

/// Ritz vectors kept beside the wanted ones: they carry the ends of the spectrum that a restart would otherwise lose.
const GUARD_VECTORS: usize = 8;

/// When [`block_krylov`] stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockKrylovOptions {
    /// Ends when one cycle adds less than this to the captured sum of eigenvalues, relative to what is not captured
    /// (`trace - sum`, but at least a millionth of the trace; without a trace, relative to the sum).
    pub tolerance: f64,
    /// Cycles after which it gives up.
    pub max_cycles: usize,
    /// Trace of the operator, if known: with it the tolerance is relative to the error that is left.
    pub trace: Option<f64>,
}

impl Default for BlockKrylovOptions {
    /// Tolerance 1e-10, 200 cycles, no trace.
    fn default() -> Self {
        Self {
            tolerance: 1e-10,
            max_cycles: 200,
            trace: None,
        }
    }
}

/// Why [`block_krylov`] gave no eigenpairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BlockKrylovError {
    /// More eigenpairs are wanted than the operator has.
    TooMany {
        /// Eigenpairs wanted.
        wanted: usize,
        /// Order of the operator.
        order: usize,
    },
    /// A lent matrix or slice does not fit.
    Shape(ShapeMismatch),
    /// The workspace is too short.
    Workspace(WorkspaceTooSmall),
    /// The operator, or the start block, gave a value that is not finite (or whose square is not).
    NonFinite {
        /// Column of the basis it was found in.
        column: usize,
    },
    /// The captured sum still changed after the last cycle.
    NoConvergence {
        /// Cycles made.
        cycles: usize,
        /// Last relative change of the captured sum.
        residual: f64,
    },
}

impl fmt::Display for BlockKrylovError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany { wanted, order } => {
                write!(
                    f,
                    "{wanted} eigenpairs wanted of an operator of order {order}"
                )
            }
            Self::Shape(shape) => shape.fmt(f),
            Self::Workspace(workspace) => workspace.fmt(f),
            Self::NonFinite { column } => {
                write!(
                    f,
                    "the operator gave a non-finite value for basis column {column}"
                )
            }
            Self::NoConvergence { cycles, residual } => write!(
                f,
                "captured sum still changing by {residual:e} after {cycles} block Krylov cycles"
            ),
        }
    }
}

impl core::error::Error for BlockKrylovError {}

impl From<ShapeMismatch> for BlockKrylovError {
    fn from(shape: ShapeMismatch) -> Self {
        Self::Shape(shape)
    }
}

impl From<WorkspaceTooSmall> for BlockKrylovError {
    fn from(workspace: WorkspaceTooSmall) -> Self {
        Self::Workspace(workspace)
    }
}

/// What [`block_krylov`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockKrylovReport {
    /// Rayleigh-Ritz cycles; 0 when the matrix was formed and decomposed.
    pub cycles: usize,
    /// Columns to which the operator was applied.
    pub columns_applied: usize,
    /// Last relative change of the captured sum.
    pub change: f64,
    /// `||G V - V L||_F` of the wanted pairs, relative to the largest eigenvalue.
    pub residual: f64,
}

/// Columns that `vectors` must have: the wanted ones and 8 more (as far as the operator has them), which serve as the next
/// warm start.
pub const fn block_krylov_kept(order: usize, wanted: usize) -> usize {
    let kept = wanted.saturating_add(GUARD_VECTORS);
    if kept < order { kept } else { order }
}

/// Basis columns: four blocks of the kept width, or the whole space.
const fn basis_columns(order: usize, wanted: usize) -> usize {
    let columns = wanted.saturating_add(GUARD_VECTORS).saturating_mul(4);
    if columns < order { columns } else { order }
}

/// Number of `f64` that [`block_krylov`] needs: `2 n c + 2 c^2 + 4 c` with `c = min(n, 4 (k + 8))`, `n` the order of the
/// operator and `k` the number of wanted pairs.
pub const fn block_krylov_workspace_len(order: usize, wanted: usize) -> usize {
    let c = basis_columns(order, wanted);
    order
        .saturating_add(c)
        .saturating_mul(c)
        .saturating_mul(2)
        .saturating_add(c.saturating_mul(2))
        .saturating_add(jacobi_eigen_workspace_len(c))
}

/// Computes the `wanted` largest eigenpairs of the symmetric positive semi-definite operator `apply`, which sets `Y = G X`.
///
/// # Shapes
/// | argument | shape | |
/// |---|---|---|
/// | `apply` | n x w -> n x w | any number of columns `w >= 1`; must overwrite all of `Y` |
/// | `start` | n x w, w >= 1 | warm start, any basis; further columns than [`block_krylov_kept`] are ignored |
/// | `values` | kept | eigenvalues, descending |
/// | `vectors` | n x kept | orthonormal; the first `wanted` are converged, the rest is the next warm start |
///
/// with `kept =` [`block_krylov_kept`]`(n, wanted)`; `n` is the number of rows of `vectors`.
///
/// # Workspace
/// [`block_krylov_workspace_len`]`(n, wanted)`.
///
/// # Errors
/// [`TooMany`](BlockKrylovError::TooMany), [`Shape`](BlockKrylovError::Shape) and
/// [`Workspace`](BlockKrylovError::Workspace) are found before the operator is called;
/// [`NonFinite`](BlockKrylovError::NonFinite) and [`NoConvergence`](BlockKrylovError::NoConvergence) end the iteration.
///
/// # Numerics
/// Sum of the wanted eigenvalues to the tolerance, vectors to its square root; orthonormal to a few `c eps`. Eigenvalues
/// below `n eps` times the largest are rounding noise of either sign.
///
/// # Determinism
/// The start block is a fixed pseudo-random sequence; nothing depends on time, addresses or threads.
///
/// # References
/// Musco and Musco, *Randomized block Krylov methods*, NeurIPS 2015; Wu and Simon, SIAM J. Matrix Anal. Appl. 22 (2000);
/// Stewart, SIAM J. Matrix Anal. Appl. 23 (2001).
///
/// # Example
/// ```
/// use nalgebra::DMatrixViewMut;
/// use qera_core::linalg::{BlockKrylovOptions, block_krylov, block_krylov_workspace_len};
///
/// const N: usize = 3;
/// let mut workspace = [0.0; block_krylov_workspace_len(N, 1)];
/// let (mut values, mut vectors) = ([0.0; N], [0.0; N * N]);
/// block_krylov(
///     |x, mut y| {
///         // G = diag(1, 5, 2)
///         for j in 0..x.ncols() {
///             for (i, g) in [1.0, 5.0, 2.0].into_iter().enumerate() {
///                 y[(i, j)] = g * x[(i, j)];
///             }
///         }
///     },
///     1,
///     &BlockKrylovOptions::default(),
///     None,
///     &mut values,
///     DMatrixViewMut::from_slice(&mut vectors, N, N),
///     &mut workspace,
/// )?;
/// assert_eq!(values[0], 5.0);
/// # Ok::<(), qera_core::linalg::BlockKrylovError>(())
/// ```
pub fn block_krylov<F>(
    mut apply: F,
    wanted: usize,
    options: &BlockKrylovOptions,
    start: Option<DMatrixView<'_, f64>>,
    values: &mut [f64],
    mut vectors: DMatrixViewMut<'_, f64>,
    workspace: &mut [f64],
) -> Result<BlockKrylovReport, BlockKrylovError>
where
    F: FnMut(DMatrixView<'_, f64>, DMatrixViewMut<'_, f64>),
{
    let order = vectors.nrows();
    if wanted > order {
        return Err(BlockKrylovError::TooMany { wanted, order });
    }
    let kept = block_krylov_kept(order, wanted);
    expect_shape("vectors", (order, kept), vectors.shape())?;
    expect_shape("values", (kept, 1), (values.len(), 1))?;
    if let Some(start) = start {
        expect_shape("start", (order, start.ncols().max(1)), start.shape())?;
    }
    let needed = block_krylov_workspace_len(order, wanted);
    let lent = Workspace::new(workspace, needed)?;
    let mut basis = Basis::new(lent, order, wanted);
    let report = if wanted == 0 {
        BlockKrylovReport {
            cycles: 0,
            columns_applied: 0,
            change: 0.0,
            residual: 0.0,
        }
    } else if basis.capacity == order {
        basis.whole_space(&mut apply)?
    } else {
        basis.begin(start)?;
        basis.iterate(&mut apply, options)?
    };
    if wanted == 0 {
        values.fill(0.0);
        vectors.fill_with_identity();
        return Ok(report);
    }
    values.copy_from_slice(&basis.ritz_values[..kept]);
    for (mut vector, ritz) in vectors.column_iter_mut().zip(basis.k.chunks_exact(order)) {
        vector.as_mut_slice().copy_from_slice(ritz);
    }
    Ok(report)
}

/// The Krylov basis `K`, its image `G K`, and the small matrices of the Rayleigh-Ritz step.
///
/// Columns `0..applied` have their image; `applied..filled` is the newest block, still without one.
#[derive(Debug)]
struct Basis<'w> {
    order: usize,
    wanted: usize,
    kept: usize,
    capacity: usize,
    k: &'w mut [f64],
    gk: &'w mut [f64],
    h: &'w mut [f64],
    ritz: &'w mut [f64],
    ritz_values: &'w mut [f64],
    line: &'w mut [f64],
    jacobi: &'w mut [f64],
    applied: usize,
    filled: usize,
    width: usize,
    columns_applied: usize,
    generator: Generator,
}

impl<'w> Basis<'w> {
    fn new(mut workspace: Workspace<'w>, order: usize, wanted: usize) -> Self {
        let capacity = basis_columns(order, wanted);
        Self {
            order,
            wanted,
            kept: block_krylov_kept(order, wanted),
            capacity,
            k: workspace.take(order * capacity),
            gk: workspace.take(order * capacity),
            h: workspace.take(capacity * capacity),
            ritz: workspace.take(capacity * capacity),
            ritz_values: workspace.take(capacity),
            line: workspace.take(capacity),
            jacobi: workspace.take(jacobi_eigen_workspace_len(capacity)),
            applied: 0,
            filled: 0,
            width: wanted / 2 + GUARD_VECTORS,
            columns_applied: 0,
            generator: Generator::default(),
        }
    }

    /// Forms `G` column by column and decomposes it.
    fn whole_space<F>(&mut self, apply: &mut F) -> Result<BlockKrylovReport, BlockKrylovError>
    where
        F: FnMut(DMatrixView<'_, f64>, DMatrixViewMut<'_, f64>),
    {
        self.k.fill(0.0);
        for i in 0..self.order {
            self.k[i * self.order + i] = 1.0;
        }
        self.filled = self.order;
        self.apply_newest(apply)?;
        self.rayleigh_ritz()?;
        self.compress();
        Ok(BlockKrylovReport {
            cycles: 0,
            columns_applied: self.columns_applied,
            change: 0.0,
            residual: self.residual(),
        })
    }

    /// Puts the first block into the basis: the lent one, or pseudo-random columns.
    fn begin(&mut self, start: Option<DMatrixView<'_, f64>>) -> Result<(), BlockKrylovError> {
        if let Some(start) = start {
            self.width = start.ncols().min(self.kept);
            for (k, column) in self
                .k
                .chunks_exact_mut(self.order)
                .zip(start.column_iter())
                .take(self.width)
            {
                k.copy_from_slice(column.as_slice());
            }
        } else {
            for k in self.k.chunks_exact_mut(self.order).take(self.width) {
                self.generator.fill(k);
            }
        }
        self.filled = self.width;
        self.orthonormalise(0)
    }

    fn iterate<F>(
        &mut self,
        apply: &mut F,
        options: &BlockKrylovOptions,
    ) -> Result<BlockKrylovReport, BlockKrylovError>
    where
        F: FnMut(DMatrixView<'_, f64>, DMatrixViewMut<'_, f64>),
    {
        let mut previous: Option<f64> = None;
        let mut change = f64::INFINITY;
        for cycle in 1..=options.max_cycles {
            // The last block of the basis stays without its image: it is what the restart goes on from.
            while self.filled + self.width <= self.capacity {
                self.apply_newest(apply)?;
                self.append_next_block()?;
            }
            self.rayleigh_ritz()?;
            let captured: f64 = self.ritz_values[..self.wanted].iter().sum();
            if let Some(previous) = previous {
                change = libm::fabs(captured - previous) / remaining(captured, options.trace);
            }
            previous = Some(captured);
            self.compress();
            let residual = self.residual();
            let exact = residual <= f64::EPSILON * self.capacity as f64;
            if change <= options.tolerance || exact {
                return Ok(BlockKrylovReport {
                    cycles: cycle,
                    columns_applied: self.columns_applied,
                    change: if exact { 0.0 } else { change },
                    residual,
                });
            }
        }
        Err(BlockKrylovError::NoConvergence {
            cycles: options.max_cycles,
            residual: change,
        })
    }

    /// `G K` for the newest block.
    fn apply_newest<F>(&mut self, apply: &mut F) -> Result<(), BlockKrylovError>
    where
        F: FnMut(DMatrixView<'_, f64>, DMatrixViewMut<'_, f64>),
    {
        let n = self.order;
        let columns = self.filled - self.applied;
        let range = self.applied * n..self.filled * n;
        apply(
            DMatrixView::from_slice(&self.k[range.clone()], n, columns),
            DMatrixViewMut::from_slice(&mut self.gk[range.clone()], n, columns),
        );
        for (j, image) in self.gk[range].chunks_exact(n).enumerate() {
            if !squared_norm(image).is_finite() {
                return Err(BlockKrylovError::NonFinite {
                    column: self.applied + j,
                });
            }
        }
        self.applied = self.filled;
        self.columns_applied += columns;
        Ok(())
    }

    /// The next Krylov block: the image of the newest one, orthonormalised against the whole basis.
    fn append_next_block(&mut self) -> Result<(), BlockKrylovError> {
        let n = self.order;
        let first = self.filled;
        let newest = &self.gk[(first - self.width) * n..first * n];
        self.k[first * n..(first + self.width) * n].copy_from_slice(newest);
        self.filled = first + self.width;
        self.orthonormalise(first)
    }

    /// Makes columns `first..filled` orthonormal to all before them and to each other.
    fn orthonormalise(&mut self, first: usize) -> Result<(), BlockKrylovError> {
        let n = self.order;
        for j in first..self.filled {
            let (before, rest) = self.k.split_at_mut(j * n);
            let column = &mut rest[..n];
            // A random column has a component of about sqrt((n - j) / n) outside the basis, so the second attempt succeeds
            // but for a freak; the bound only makes the loop provably finite.
            let mut attempts = 0;
            while !orthonormalise_column(before, column, n) {
                attempts += 1;
                if attempts == 16 || !squared_norm(column).is_finite() {
                    return Err(BlockKrylovError::NonFinite { column: j });
                }
                self.generator.fill(column);
            }
        }
        Ok(())
    }

    /// Eigenpairs of `H = K^T G K` over the applied columns, into `ritz_values` and `ritz` (c x c).
    fn rayleigh_ritz(&mut self) -> Result<(), BlockKrylovError> {
        let (n, c) = (self.order, self.applied);
        for j in 0..c {
            let image = &self.gk[j * n..(j + 1) * n];
            for i in j..c {
                self.h[j * c + i] = dot(&self.k[i * n..(i + 1) * n], image);
            }
        }
        jacobi_eigen(
            DMatrixViewMut::from_slice(&mut self.h[..c * c], c, c),
            &mut self.ritz_values[..c],
            DMatrixViewMut::from_slice(&mut self.ritz[..c * c], c, c),
            self.jacobi,
            JACOBI_MAX_SWEEPS,
        )
        .map_err(|error| match error {
            JacobiEigenError::NoConvergence { sweeps, residual } => {
                BlockKrylovError::NoConvergence {
                    cycles: sweeps,
                    residual,
                }
            }
            JacobiEigenError::NonFinite { column, .. } => BlockKrylovError::NonFinite { column },
            JacobiEigenError::Shape(shape) => BlockKrylovError::Shape(shape),
            JacobiEigenError::Workspace(workspace) => BlockKrylovError::Workspace(workspace),
        })?;
        Ok(())
    }

    /// Replaces the applied columns by the leading Ritz vectors, with their images, and moves the unapplied block up behind
    /// them. Row by row, so that no second basis is needed.
    fn compress(&mut self) {
        let (n, c, kept) = (self.order, self.applied, self.kept.min(self.applied));
        let line = &mut self.line[..c];
        for matrix in [&mut *self.k, &mut *self.gk] {
            for i in 0..n {
                for (j, value) in line.iter_mut().enumerate() {
                    *value = matrix[j * n + i];
                }
                for (j, ritz) in self.ritz[..c * c].chunks_exact(c).take(kept).enumerate() {
                    matrix[j * n + i] = dot(line, ritz);
                }
            }
        }
        self.k.copy_within(c * n..self.filled * n, kept * n);
        self.filled = kept + self.filled - c;
        self.applied = kept;
    }

    /// `||G V - V L||_F / l_1` of the wanted pairs, after [`Self::compress`].
    fn residual(&self) -> f64 {
        let n = self.order;
        let largest = libm::fabs(self.ritz_values[0]);
        let mut sum = 0.0;
        for ((v, gv), value) in self
            .k
            .chunks_exact(n)
            .zip(self.gk.chunks_exact(n))
            .zip(self.ritz_values.iter())
            .take(self.wanted)
        {
            for (v, gv) in v.iter().zip(gv) {
                let r = gv - value * v;
                sum += r * r;
            }
        }
        if sum > 0.0 {
            libm::sqrt(sum) / largest
        } else {
            0.0
        }
    }
}

/// What the captured sum is measured against; never zero.
fn remaining(captured: f64, trace: Option<f64>) -> f64 {
    let scale = trace.map_or(captured, |trace| (trace - captured).max(1e-6 * trace));
    scale.max(f64::MIN_POSITIVE)
}

/// Two passes of Gram-Schmidt against `before`, then scaling to norm 1. False when nothing was left of the column,
/// which then holds no usable direction (or a non-finite one).
fn orthonormalise_column(before: &[f64], column: &mut [f64], n: usize) -> bool {
    let original = libm::sqrt(squared_norm(column));
    project_out(before, column, n);
    let once = libm::sqrt(squared_norm(column));
    project_out(before, column, n);
    let twice = libm::sqrt(squared_norm(column));
    // Below this the first pass left only its own rounding error. If the second pass still removes half, so did the first.
    let noise = f64::EPSILON * (1 + before.len() / n) as f64 * original;
    if !original.is_finite() || once <= noise || twice <= 0.5 * once || twice < f64::MIN_POSITIVE {
        return false;
    }
    column.iter_mut().for_each(|x| *x /= twice);
    true
}

/// `column -= K (K^T column)`, one basis column after another (the modified form: the same cost, a little more accurate).
fn project_out(before: &[f64], column: &mut [f64], n: usize) {
    for k in before.chunks_exact(n) {
        let coefficient = dot(k, column);
        add_scaled(-coefficient, k, column);
    }
}
