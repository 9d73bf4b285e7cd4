//! Leading eigenpairs of a symmetric positive semi-definite operator by restarted block Krylov
//! iteration.
//!
//! **Derivation.** The space spanned by `X, G X, G^2 X, ...` holds every `p(G) X`, so it holds the
//! best polynomial filter of its degree: its error falls like a Chebyshev polynomial in the gap,
//! where subspace iteration (only `G^q X`) falls like a power. On real layers `l_{k+1} / l_k` is
//! 0.95 to 0.99, and that difference is what makes the solve cheap. Each block `G X_j` is
//! orthogonalised against the whole basis `K` (twice: once is not enough, and more is not needed;
//! Kahan and Parlett), and the eigenpairs of `H = K^T G K` in `f64` are the Rayleigh-Ritz values
//! and vectors.
//!
//! When the basis is full it is compressed to the leading `k + 8` Ritz vectors *and the block that
//! would have come next*, and grown again (a thick restart: Wu and Simon 2000; Stewart 2001). All
//! Ritz residuals lie in that block, so the compressed basis is again a Krylov space and no product
//! is thrown away; a plain restart from Ritz vectors would repeat one product per kept vector.
//!
//! A column that vanishes in the orthogonalisation (an invariant subspace: low rank, or an
//! eigenvalue of higher multiplicity than the block) is replaced by a fresh pseudo-random one, so
//! the basis stays orthonormal and the search goes on elsewhere. When `4 (k + 8) >= n` the whole
//! matrix is formed instead and decomposed: exact, and no dearer.
//!
//! **Cost.** At k = 32 a cold start applies 5 blocks of `k/2 + 8` columns in the first cycle and 4
//! in each later one; a warm start applies 3 blocks of its own width, then 1 a cycle. A basis of `c
//! = 4 (k + 8)` columns costs `O(n c^2)` a cycle for the orthogonalisation and `O(c^3)` for `H`,
//! small beside the products for the layers this is meant for.
//!
//! **Error bound.** With residual `r = ||G V - V L||_F` and gap `g = l_k - l_{k+1}`, the captured
//! sum is at most `r^2 / g` below the true one (Mathias 1998): it converges twice as fast as the
//! vectors. The stop test watches that sum.

mod basis;
mod orthonormal;
mod outcome;
mod sizes;
mod start;

pub use outcome::{BlockKrylovError, BlockKrylovOptions, BlockKrylovReport};
pub use sizes::{block_krylov_kept, block_krylov_workspace_len};

use nalgebra::{DMatrixView, DMatrixViewMut};

use super::lent::{Workspace, expect_length, expect_matrix};
use basis::Basis;

/// Computes the `wanted` largest eigenpairs of the symmetric positive semi-definite operator
/// `apply`, which sets `Y = G X`.
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
/// Sum of the wanted eigenvalues to the tolerance, vectors to its square root; orthonormal to a few
/// `c eps`. Eigenvalues below `n eps` times the largest are rounding noise of either sign.
///
/// # Determinism
/// The start block is a fixed pseudo-random sequence; nothing depends on time, addresses or
/// threads.
///
/// # References
/// Musco and Musco, *Randomized block Krylov methods*, NeurIPS 2015; Wu and Simon, SIAM J. Matrix
/// Anal. Appl. 22 (2000); Stewart, SIAM J. Matrix Anal. Appl. 23 (2001).
///
/// # Example
/// ```
/// use nalgebra::DMatrixViewMut;
/// use qera_core::linalg::{
///     BlockKrylovOptions, BlockKrylovReport, block_krylov, block_krylov_kept,
///     block_krylov_workspace_len,
/// };
///
/// const N: usize = 3;
/// const KEPT: usize = block_krylov_kept(N, 1); // 1 and 8 more, but at most N
/// let mut workspace = [0.0; block_krylov_workspace_len(N, 1)];
/// let (mut values, mut vectors) = ([0.0; KEPT], [0.0; N * KEPT]);
/// let BlockKrylovReport { residual, .. } = block_krylov(
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
///     DMatrixViewMut::from_slice(&mut vectors, N, KEPT),
///     &mut workspace,
/// )?;
/// assert!(values[0] == 5.0 && residual < 1e-14);
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
    expect_matrix("vectors", &vectors, order, kept)?;
    expect_length("values", values, kept)?;
    if let Some(start) = start {
        expect_matrix("start", &start, order, start.ncols().max(1))?;
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
