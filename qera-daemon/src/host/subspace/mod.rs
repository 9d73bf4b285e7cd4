//! The top eigenvectors of G = E^T S E. `error_operand` is E, `operator` multiplies by G, `basis`
//! grows, `cycle` is one cycle of block Krylov, `ritz` says how good its values are, and `top`
//! finds the eigenvectors. `small_top` finds those of small matrices that are at hand, through
//! `tridiagonal`.

pub(crate) mod basis;
pub(crate) mod cycle;
pub(crate) mod error_operand;
pub(crate) mod operator;
pub(crate) mod ritz;
pub(crate) mod small_top;
pub(crate) mod top;
mod tridiagonal;
