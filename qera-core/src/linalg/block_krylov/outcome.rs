//! When the iteration ends, and with what: options, error, report.

use core::fmt;

use super::super::jacobi_eigen::JacobiEigenError;
use super::super::lent::{ShapeMismatch, WorkspaceTooSmall, from_lent};

/// The conditions under which [`block_krylov`](super::block_krylov()) stops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockKrylovOptions {
    /// Ends when one cycle adds less than this to the captured sum of eigenvalues, relative to what
    /// is not captured (`trace - sum`, but at least a millionth of the trace; without a trace,
    /// relative to the sum).
    pub tolerance: f64,
    /// Cycles after which it gives up.
    pub max_cycles: usize,
    /// Trace of the operator, if known: with it the tolerance is relative to the error that is
    /// left.
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

/// Why [`block_krylov`](super::block_krylov()) gave no eigenpairs.
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

from_lent!(BlockKrylovError);

/// What [`block_krylov`](super::block_krylov()) did.
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
