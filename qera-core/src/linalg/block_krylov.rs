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

use super::jacobi_eigen::{JacobiEigenError, jacobi_eigen_workspace_len};
use super::krylov_basis::Basis;
use super::shape::{ShapeMismatch, expect_shape};
use super::workspace::{Workspace, WorkspaceTooSmall};

/// Ritz vectors kept beside the wanted ones: they carry the ends of the spectrum that a restart would otherwise lose.
pub(super) const GUARD_VECTORS: usize = 8;

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
    /// The eigenvalues of the small matrix `K^T G K` were not found.
    RayleighRitz(JacobiEigenError),
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
            Self::RayleighRitz(error) => write!(f, "Rayleigh-Ritz step: {error}"),
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
pub(super) const fn basis_columns(order: usize, wanted: usize) -> usize {
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
/// [`NonFinite`](BlockKrylovError::NonFinite), [`RayleighRitz`](BlockKrylovError::RayleighRitz) and
/// [`NoConvergence`](BlockKrylovError::NoConvergence) end the iteration.
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
    let lent = Workspace::new(workspace, block_krylov_workspace_len(order, wanted))?;
    if wanted == 0 {
        values.fill(0.0);
        vectors.fill_with_identity();
        return Ok(BlockKrylovReport {
            cycles: 0,
            columns_applied: 0,
            change: 0.0,
            residual: 0.0,
        });
    }
    let mut basis = Basis::new(lent, order, wanted);
    let report = basis.solve(&mut apply, options, start)?;
    basis.write_pairs(values, &mut vectors);
    Ok(report)
}
