//! Dense linear algebra in lent memory: one routine a module, which opens with its derivation, cost
//! and error bound.
//!
//! | routine | problem | cost (flops) | use it for |
//! |---|---|---|---|
//! | [`jacobi_eigen()`] | `A = Q L Q^T`, symmetric | about `60 n^3` | Rayleigh-Ritz, the eigenvalue route to `R^{1/2}` |
//! | [`jacobi_svd()`] | `A = U S V^T`, `rows >= cols` | about `40 rows cols^2` | the paper's SVD, to high relative accuracy |
//! | [`cholesky()`] | `A = L L^T`, positive definite | `n^3 / 3` | rounding with feedback |
//! | [`newton_schulz()`] | `A^{1/2}` and `A^{-1/2}`, positive definite | `6 n^3` a step | the paper's whitening, products only |
//! | [`block_krylov()`] | top `k` eigenpairs of an operator `Y = G X` | `k`-dependent | the projection route: `G` is never formed |
//!
//! Every matrix is column-major (nalgebra's `DMatrixView`, unit row stride), every scalar is `f64`,
//! every loop runs in a fixed order: the same input gives the same bits. The products are written
//! here rather than taken from nalgebra because nalgebra changes kernel with its `std` feature, and
//! a feature that another crate switched on must not change a result.
//!
//! Memory is lent: `x_workspace_len(..)` gives the exact number of `f64` that `x` needs, more is
//! accepted, one less is refused as an error value. Nothing here panics on a caller's data: shapes,
//! lengths and finiteness are checked first, and each iteration is bounded and ends in an error
//! that carries its count and residual.

pub mod block_krylov;
pub mod cholesky;
mod columns;
pub mod jacobi_eigen;
pub mod jacobi_svd;
mod lent;
mod narrow;
pub mod newton_schulz;
mod rotation;

#[doc(inline)]
pub use block_krylov::{
    BlockKrylovError, BlockKrylovOptions, BlockKrylovReport, block_krylov, block_krylov_kept,
    block_krylov_workspace_len,
};
#[doc(inline)]
pub use cholesky::{CholeskyError, cholesky};
#[doc(inline)]
pub use jacobi_eigen::{
    JacobiEigenError, JacobiEigenReport, jacobi_eigen, jacobi_eigen_workspace_len,
};
#[doc(inline)]
pub use jacobi_svd::{JacobiSvdError, JacobiSvdReport, jacobi_svd, jacobi_svd_workspace_len};
pub use lent::{Shape, ShapeMismatch, WorkspaceTooSmall};
#[doc(inline)]
pub use newton_schulz::{
    NewtonSchulzError, NewtonSchulzLimits, NewtonSchulzReport, newton_schulz,
    newton_schulz_workspace_len,
};
pub use rotation::JACOBI_MAX_SWEEPS;

pub(crate) use columns::{add_scaled, dot, dot_add_scaled};
pub(crate) use lent::{Workspace, expect_length, expect_matrix, from_lent};
pub(crate) use narrow::{add_scaled_narrow, narrow, narrow_dot};
