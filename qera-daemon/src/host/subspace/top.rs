//! The top eigenvectors of G = E^T S E.
//!
//! Small n: G is formed in f64 and decomposed. Otherwise block Krylov in two cycles. The first:
//! blocks b, G b, G^2 b, ... from a random start, narrow ones, because what counts is their number
//! (the spectra here are flat behind rank k, which is why subspace iteration and randomised SVD are
//! not enough: 1e-4 to 1e-2 above the optimum at the same cost; Musco and Musco 2015 has the
//! theory), until Rayleigh-Ritz says that the sum of the top k is known to f32's precision. The
//! second starts from the best vectors, and takes two blocks as a rule.
//!
//! Products are f32, except those of the k Ritz vectors with which the second begins: they all but
//! make up the answer. With their images in f64 it is a step of iterative refinement: what f32
//! leaves in the images of the other blocks is multiplied by their small share (1e-3 and less). In
//! f32 alone the excess is about (1e-7 lambda_1 / lambda_k)^2 (measured: 7e-7 at a spread of 4e4);
//! so it is below 1e-8, also at a spread of 1e6 (test `solve_accuracy`).
//!
//! A random block of b vectors spans no more than b vectors of an eigenvalue that repeats. Where
//! one stands b times among the values found, the first cycle is run again with blocks of more than
//! k: then the sum is right however often it repeats.
//!
//! When to stop: for a Ritz pair (theta, v) with residual r = G v - theta v, what theta lacks of
//! its eigenvalue is at most
//! |r|^2 / gap, the gap being that to the rest of the spectrum (Parlett, The Symmetric Eigenvalue Problem, 11.7). The gap to
//! the first eigenvalue outside of the basis is taken to be that to the last vector kept beyond k,
//! which is closer. The residuals need no product: of a Krylov basis only the last block's images
//! lead out. What they are compared with, the trace that is not captured, is estimated from the
//! random start: the mean of q^T G q over its columns less their captured part, times n
//! (Hutchinson's estimator of a flat rest; a few percent).

use faer::Mat;

use crate::host::dense::Eigenpairs;
use crate::host::solve_error::SolveError;
use crate::host::subspace::basis::start;
use crate::host::subspace::cycle::{
    BLOCKS, Cycle, Growth, Subspace, TOLERANCE, first_block, kept, nearby,
};
use crate::host::subspace::operator::ErrorOperator;
use crate::host::subspace::small_top::top_eigen;

/// Up to this n the eigenproblem is solved densely in f64.
pub(crate) const DENSE_MAX: usize = 512;
/// Columns of G made at a time.
pub(crate) const DENSE_PANEL: usize = 128;
/// The most blocks of the first cycle; natural spectra take 9.
const BLOCKS_FIRST: usize = 12;
/// The cost of decomposing Q^T G Q of c columns, in f32 products of the same time, divided by c^3.
const LOOK_FLOPS: usize = 30;
/// A block must cost as much as this many checks to be worth saving: one of three checks shows that
/// no further block is needed.
const LOOKS: usize = 2;
/// Blocks of the single cycle from a warm start: excess 1e-8 to 1e-6 after a 5 % change of R.
const BLOCKS_WARM: usize = 3;
/// The most cycles; usually there are two.
const CYCLES_MAX: usize = 16;
/// How exact the answer has to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effort<'a> {
    /// The correction of a last generation: from a cold start, to the tolerance.
    Final,
    /// The correction at a solve point: one cycle from the vectors of the solve point before.
    Warm(&'a Mat<f64>),
}

/// Columns of the basis of a cold start.
pub(crate) fn krylov_columns(n: usize, k: usize) -> usize {
    let columns = (BLOCKS_FIRST * first_block(k)).max(BLOCKS * kept(k));
    columns.min(n)
}

/// The top-k eigenspace of G.
///
/// # Errors
/// [`SolveError`] when products overflow or the dense eigensolver does not converge.
pub(crate) fn top_subspace(
    operator: &ErrorOperator<'_>,
    k: usize,
    effort: Effort<'_>,
) -> Result<Subspace, SolveError> {
    let n = operator.n();
    if k == 0 {
        return Ok(Subspace {
            vectors: Mat::zeros(n, 0),
            beyond: Mat::zeros(n, 0),
            values: Vec::new(),
        });
    }
    if is_dense(n, k) {
        return dense(operator, k);
    }
    match effort {
        Effort::Warm(vectors) if vectors.nrows() == n && vectors.ncols() >= k => {
            let mut cycle = Cycle::new(operator, k, BLOCKS_WARM * vectors.ncols());
            let limits = Growth {
                blocks: BLOCKS_WARM,
                looked_at_from: usize::MAX,
            };
            let found = cycle.run(vectors.clone(), limits)?;
            let beyond = cycle.beyond(&found.pairs);
            Ok(found.subspace(k, beyond))
        }
        Effort::Warm(_) | Effort::Final => cold(operator, k),
    }
}

/// Whether G is formed: always for small n, and where a Krylov basis would be near n columns.
pub(crate) const fn is_dense(n: usize, k: usize) -> bool {
    n <= DENSE_MAX || 4 * kept(k) > n || BLOCKS_FIRST * first_block(k) >= n
}

fn dense(operator: &ErrorOperator<'_>, k: usize) -> Result<Subspace, SolveError> {
    let n = operator.n();
    let mut g = Mat::<f64>::zeros(n, n);
    for first in (0..n).step_by(DENSE_PANEL) {
        let width = DENSE_PANEL.min(n - first);
        let identity = Mat::from_fn(n, width, |i, j| f64::from(u8::from(i == first + j)));
        let columns = operator.apply_f64(identity.as_ref());
        g.as_mut().subcols_mut(first, width).copy_from(&columns);
    }
    let Eigenpairs {
        vectors,
        mut values,
    } = top_eigen(&g, nearby(k))?;
    values.truncate(k);
    let (kept, nearby) = (kept(k).min(n), vectors.ncols());
    Ok(Subspace {
        vectors: vectors.subcols(0, kept).to_owned(),
        beyond: vectors.subcols(kept, nearby - kept).to_owned(),
        values,
    })
}

/// The number of columns from which the basis of a cold start is checked, since fewer are hardly
/// ever enough. Where a check costs more than going on, there is none before the basis is whole:
/// blocks of small layers are cheap, and of those of SmolLM2 nearly all take twelve.
const fn first_look(k: usize, vector_flops: usize) -> usize {
    let columns = 4 * k + first_block(k);
    let block = first_block(k).saturating_mul(vector_flops);
    if LOOKS * LOOK_FLOPS * columns.pow(3) > block {
        usize::MAX
    } else {
        columns
    }
}

fn cold(operator: &ErrorOperator<'_>, k: usize) -> Result<Subspace, SolveError> {
    let random = start(operator.n(), first_block(k));
    let mut cycle = Cycle::new(operator, k, krylov_columns(operator.n(), k));
    let limits = Growth {
        blocks: BLOCKS_FIRST,
        looked_at_from: first_look(k, operator.flops()),
    };
    let mut found = cycle.run(random, limits)?;
    if found.pairs.may_repeat(first_block(k)) {
        cycle.basis.clear();
        found = cycle.run(start(operator.n(), kept(k)), Growth::refining(k))?;
    }
    let beyond = cycle.beyond(&found.pairs);
    let rest = cycle.not_captured(&found.pairs);
    for _ in 1..CYCLES_MAX {
        cycle.begin_anew(rest);
        let next = cycle.run(found.vectors, Growth::refining(k))?;
        // Where rounding keeps the residuals large, the end is seen by the sum, which no longer
        // grows.
        let growth = (next.pairs.captured - found.pairs.captured).abs();
        let done = next.pairs.lacking.min(growth) <= TOLERANCE * rest;
        found = next;
        if done {
            break;
        }
    }
    Ok(found.subspace(k, beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations of G times a vector for an m x n layer.
    const fn flops(m: usize, n: usize) -> usize {
        4 * m * n + 2 * m * m
    }

    #[test]
    fn small_layers_are_looked_at_once() {
        for (m, n) in [(576, 576), (576, 1536), (1536, 576), (1024, 1024)] {
            assert_eq!(first_look(32, flops(m, n)), usize::MAX, "{m} x {n}");
        }
        // Where a block costs as much as many checks, or the basis has few columns.
        for (m, n) in [(2048, 2048), (4096, 4096), (4096, 11008)] {
            assert_eq!(first_look(32, flops(m, n)), 144, "{m} x {n}");
        }
        assert_eq!(first_look(8, flops(640, 640)), 48);
    }
}
