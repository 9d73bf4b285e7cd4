//! How many columns are kept, how many the basis has, and how much memory they take.

use super::super::jacobi_eigen::jacobi_eigen_workspace_len;

/// Ritz vectors kept beside the wanted ones: they carry the ends of the spectrum that a restart
/// would otherwise lose.
pub(super) const GUARD_VECTORS: usize = 8;

/// Columns that `vectors` must have: the wanted ones and 8 more (as far as the operator has them),
/// which serve as the next warm start.
pub const fn block_krylov_kept(order: usize, wanted: usize) -> usize {
    let kept = wanted.saturating_add(GUARD_VECTORS);
    if kept < order { kept } else { order }
}

/// Basis columns: four blocks of the kept width, or the whole space.
pub(super) const fn basis_columns(order: usize, wanted: usize) -> usize {
    let columns = wanted.saturating_add(GUARD_VECTORS).saturating_mul(4);
    if columns < order { columns } else { order }
}

/// Number of `f64` that [`block_krylov`](super::block_krylov()) needs: `2 n c + 2 c^2 + 4 c` with
/// `c = min(n, 4 (k + 8))`, `n` the order of the operator and `k` the number of wanted pairs.
pub const fn block_krylov_workspace_len(order: usize, wanted: usize) -> usize {
    let c = basis_columns(order, wanted);
    order
        .saturating_add(c)
        .saturating_mul(c)
        .saturating_mul(2)
        .saturating_add(c.saturating_mul(2))
        .saturating_add(jacobi_eigen_workspace_len(c))
}
