//! The top eigenvectors of G = E^T S E: `error_operand` is E, `operator` multiplies by G, `basis`
//! grows, `cycle` by cycle; `ritz` says how good its values are, `top` finds the eigenvectors;
//! `small_top`, by `tridiagonal`, finds those of small matrices that are at hand.

pub(crate) mod basis;
pub(crate) mod cycle;
pub(crate) mod error_operand;
pub(crate) mod operator;
pub(crate) mod ritz;
pub(crate) mod small_top;
pub(crate) mod top;
mod tridiagonal;
