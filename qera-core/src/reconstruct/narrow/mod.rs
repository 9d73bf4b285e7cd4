//! QERA-exact in f32 and little memory, for devices: E comes column by column and is never held.
//!
//! **Derivation.** As [`reconstruct_exact`](super::reconstruct_exact), A = E V and B = V^T with V
//! the k leading eigenvectors of G = E^T R E, found by applying G to a few columns at a time: `G X
//! = E^T (R (E X))`, two passes over the columns of E. Between them stand w = k + 2 columns of m
//! numbers; no m x n and no m x m array but the packed R itself.
//!
//! The basis is as small as it can be: the block X of w columns and its image G X, 2 w columns
//! together. Its Ritz vectors are the next X, until a cycle gains less than 1e-4 of what is left.
//! That is the first step of a block Krylov iteration, again and again: it converges as steepest
//! ascent over blocks does, by the square of the gap that a k-th and a (2 w)-th eigenvalue make,
//! more slowly than [`block_krylov`](crate::linalg::block_krylov()) with its 8 w vectors, whose
//! memory a device has not.
//!
//! **What is f32**: R, E, the basis and every product; sums of more than 64 products, H = K^T G K
//! and its eigenvectors are f64. G is known to 2^-20 of tr(G) by it, and V is orthonormal to 2^-22,
//! so that the error is above that of the f64 routine by what the last cycle left and no more: on
//! real layers at 3 bits by less than 2e-4 of it after three to eight cycles (test
//! `narrow_solves_come_near_the_optimum`).
//!
//! **Cost.** Four passes over E and 2 w columns a cycle, `4 m n + 2 m^2` flops each; a small
//! eigenproblem in f64 a cycle, `60 (2 w)^3` flops, which is most of
//! it where f64 is done in software. Two passes besides, for the error without a correction and for
//! A.
//!
//! References: as [`block_krylov`](crate::linalg::block_krylov()); QERA (ICLR 2025), theorem 1.

mod basis;
mod operator;

use core::fmt;

use crate::linalg::{JacobiEigenError, jacobi_eigen_workspace_len};
use crate::packed::packed_len;
use basis::NarrowBasis;
use operator::OutputProduct;

/// How many Ritz vectors are kept beside the wanted ones.
const GUARD: usize = 2;

/// The memory that is lent to [`reconstruct_narrow`].
#[derive(Debug)]
pub struct NarrowRoom<'a> {
    /// Room for [`narrow_columns_len`] numbers.
    pub columns: &'a mut [f32],
    /// Room for [`narrow_workspace_len`] numbers.
    pub workspace: &'a mut [f64],
}

/// The problem of a layer on a device.
#[derive(Clone, Copy, Debug)]
pub struct NarrowProblem<'a> {
    /// R, packed: `m (m + 1) / 2` numbers ([`crate::packed`]).
    pub autocorrelation: &'a [f32],
    /// The number m of inputs.
    pub in_features: usize,
    /// The number n of outputs.
    pub out_features: usize,
}

/// The errors under R before and after a narrow reconstruction, before its factors are rounded any
/// further.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NarrowReport {
    /// The error without a correction, tr(G).
    pub error_without: f64,
    /// The error that is left with the correction.
    pub error_with: f64,
    /// How many columns of A are not zero.
    pub rank_used: usize,
    /// How many cycles were made.
    pub cycles: usize,
}

/// Why there is no narrow reconstruction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NarrowError {
    /// The layer has no inputs or no outputs.
    Empty,
    /// A lent slice has the wrong length, or is too short.
    Length {
        /// The name of the slice.
        operand: &'static str,
        /// How many numbers are needed.
        needed: usize,
        /// How many were lent.
        lent: usize,
    },
    /// A column of E, or its product with R, is not finite.
    NonFinite,
    /// The small eigenproblem of a cycle was not solved.
    RayleighRitz(JacobiEigenError),
}

impl fmt::Display for NarrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a layer without inputs or outputs"),
            Self::Length {
                operand,
                needed,
                lent,
            } => write!(
                f,
                "`{operand}` must hold {needed} numbers, but holds {lent}"
            ),
            Self::NonFinite => write!(f, "E or R E is not finite"),
            Self::RayleighRitz(error) => write!(f, "Rayleigh-Ritz step: {error}"),
        }
    }
}

impl core::error::Error for NarrowError {}

/// How many columns X has.
const fn block_columns(out_features: usize, rank: usize) -> usize {
    let wide = rank.saturating_add(GUARD);
    if wide < out_features {
        wide
    } else {
        out_features
    }
}

/// How many columns the basis has: X and its image.
const fn basis_columns(out_features: usize, rank: usize) -> usize {
    let both = block_columns(out_features, rank).saturating_mul(2);
    if both < out_features {
        both
    } else {
        out_features
    }
}

/// Number of f32 that [`reconstruct_narrow`] needs beside A, B and R: `3 n w + 2 m w + m` with
/// w = min(k + 2, n).
#[must_use]
pub const fn narrow_columns_len(in_features: usize, out_features: usize, rank: usize) -> usize {
    let block = block_columns(out_features, rank);
    let basis = basis_columns(out_features, rank);
    out_features
        .saturating_mul(basis.saturating_add(block))
        .saturating_add(in_features.saturating_mul(block.saturating_mul(2).saturating_add(1)))
}

/// Number of f64 that [`reconstruct_narrow`] needs: `2 c^2 + 4 c` with c = min(2 w, n).
#[must_use]
pub const fn narrow_workspace_len(out_features: usize, rank: usize) -> usize {
    let c = basis_columns(out_features, rank);
    c.saturating_mul(c)
        .saturating_mul(2)
        .saturating_add(c.saturating_mul(2))
        .saturating_add(jacobi_eigen_workspace_len(c))
}

/// Solves a layer by QERA-exact in f32. `error(first, columns)` fills `columns` with the columns
/// `first..` of E = W - W~, m numbers each; every column is asked for once a pass, in order.
///
/// # Shapes
/// `a` holds the k columns of A, m numbers each, `b` the k rows of B, n numbers each: k is what `a`
/// has room for.
///
/// # Workspace
/// [`narrow_columns_len`]`(m, n, k)` and [`narrow_workspace_len`]`(n, k)`.
///
/// # Errors
/// [`NarrowError`]; lengths are checked before anything is computed.
///
/// # Numerics
/// See [the module](self). The error with the correction is never above the one without by more
/// than 2^-20 of it, however many cycles were made: V is orthonormal.
///
/// # Determinism
/// One fixed order of operations in IEEE arithmetic without fusion: the same bits on every machine.
///
/// ```
/// use qera_core::reconstruct::{
///     NarrowProblem, NarrowReport, NarrowRoom, narrow_columns_len, narrow_workspace_len,
///     reconstruct_narrow,
/// };
///
/// const M: usize = 2;
/// let problem = NarrowProblem {
///     autocorrelation: &[4.0, 0.0, 1.0], // R = diag(4, 1)
///     in_features: M,
///     out_features: M,
/// };
/// let error = [1.0, 0.0, 0.0, 1.0]; // E = I, by columns
/// let (mut a, mut b) = ([0.0; M], [0.0; M]);
/// let mut columns = [0.0; narrow_columns_len(M, M, 1)];
/// let mut workspace = [0.0; narrow_workspace_len(M, 1)];
/// let NarrowReport { error_without, error_with, rank_used, .. } = reconstruct_narrow(
///     &problem,
///     &mut |first: usize, columns: &mut [f32]| {
///         columns.copy_from_slice(&error[first * M..][..columns.len()]);
///     },
///     &mut a,
///     &mut b,
///     NarrowRoom { columns: &mut columns, workspace: &mut workspace },
/// )?;
/// // The louder channel is repaired, the quiet one's error of 1 is left.
/// assert_eq!((error_without, rank_used), (5.0, 1));
/// assert!((error_with - 1.0).abs() < 1e-6);
/// # Ok::<(), qera_core::reconstruct::NarrowError>(())
/// ```
pub fn reconstruct_narrow(
    problem: &NarrowProblem<'_>,
    error: &mut impl FnMut(usize, &mut [f32]),
    a: &mut [f32],
    b: &mut [f32],
    room: NarrowRoom<'_>,
) -> Result<NarrowReport, NarrowError> {
    let (m, n) = (problem.in_features, problem.out_features);
    if m == 0 || n == 0 {
        return Err(NarrowError::Empty);
    }
    let rank = a.len() / m;
    exact_length("a", rank * m, a.len())?;
    exact_length("b", rank * n, b.len())?;
    exact_length(
        "autocorrelation",
        packed_len(m),
        problem.autocorrelation.len(),
    )?;
    enough(
        "columns",
        narrow_columns_len(m, n, rank),
        room.columns.len(),
    )?;
    enough(
        "workspace",
        narrow_workspace_len(n, rank),
        room.workspace.len(),
    )?;

    a.fill(0.0);
    b.fill(0.0);
    let block = block_columns(n, rank);
    let (basis, scratch) = room
        .columns
        .split_at_mut(n * (basis_columns(n, rank) + block));
    let mut product = OutputProduct::new(problem, error, scratch);
    let error_without = product.trace();
    if !error_without.is_finite() {
        return Err(NarrowError::NonFinite);
    }
    let wanted = rank.min(m).min(n);
    let mut report = NarrowReport {
        error_without,
        error_with: error_without,
        rank_used: 0,
        cycles: 0,
    };
    if wanted == 0 || error_without <= 0.0 {
        return Ok(report);
    }
    let mut basis = NarrowBasis::new(n, block, basis, room.workspace);
    report.cycles = basis.iterate(&mut product, wanted, error_without)?;
    report.rank_used = basis.rank(wanted);
    let vectors = basis.vectors(report.rank_used);
    for (row, vector) in b.chunks_exact_mut(n).zip(vectors.chunks_exact(n)) {
        row.copy_from_slice(vector);
    }
    product.error_times(vectors, a);
    let captured: f64 = a
        .chunks_exact(m)
        .take(report.rank_used)
        .map(|column| product.power(column))
        .sum();
    report.error_with = (error_without - captured).max(0.0);
    Ok(report)
}

const fn exact_length(
    operand: &'static str,
    needed: usize,
    lent: usize,
) -> Result<(), NarrowError> {
    if needed == lent {
        Ok(())
    } else {
        Err(NarrowError::Length {
            operand,
            needed,
            lent,
        })
    }
}

const fn enough(operand: &'static str, needed: usize, lent: usize) -> Result<(), NarrowError> {
    if needed <= lent {
        Ok(())
    } else {
        Err(NarrowError::Length {
            operand,
            needed,
            lent,
        })
    }
}
