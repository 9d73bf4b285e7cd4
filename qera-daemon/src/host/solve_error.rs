//! Why a solve can fail.

use qera_core::statistics::StatisticError;

/// Why a layer cannot be solved.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SolveError {
    /// A product is not finite.
    #[error("products overflow: the weights or activations are too large")]
    Overflow,
    /// A product with held-out rows is not finite.
    #[error("products overflow on held-out rows")]
    HeldOutOverflow,
    /// The core refused a statistic. This would be a defect.
    #[error("{0}")]
    Statistic(StatisticError),
    /// A maximum over batches cannot leave rows out. This would be a defect.
    #[error("a maximum over batches cannot be had without some of their rows")]
    LeftOut,
    /// R has no factor: it is not finite.
    #[error("R has no Cholesky factor because it is not finite: products of the inputs overflow")]
    NotPositive,
    /// No row was folded into the R that is to be rounded under. This would be a defect.
    #[error("R is not gathered, and weights cannot be rounded under it")]
    NotGathered,
    /// The dense eigensolver gave up.
    #[error("the eigensolver failed on a matrix of {n} columns: it did not converge")]
    NoConvergence {
        /// The size of its matrix.
        n: usize,
    },
}
