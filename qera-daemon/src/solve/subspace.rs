//! The top eigenvectors of G = E^T S E.
//!
//! Small n: G is formed in f64 and decomposed. Otherwise restarted block Krylov: blocks b, G b, G^2 b, ...
//! span a basis, Rayleigh-Ritz in f64 takes the best k + 8 vectors out of it, and they start the next
//! cycle. The spectra here are flat behind rank k, which is why subspace iteration and randomised SVD are
//! not enough (1e-4 to 1e-2 above the optimum at the same cost; Musco and Musco 2015 has the theory).
//! Products are f32; the objective is stationary in V, so that costs 1e-10 of it, except when
//! lambda_1 / lambda_k > 1e5: then the cycles after the first use f64.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};

use super::metric::ErrorOperator;

/// Up to this n the eigenproblem is solved densely in f64.
pub(super) const DENSE_MAX: usize = 512;
/// Columns of G made at a time.
pub(super) const DENSE_PANEL: usize = 128;
/// The same for candidates in the choice of the shrinkage, of which there are dozens.
const DENSE_MAX_CANDIDATE: usize = 160;
/// Vectors kept beyond k.
const EXTRA: usize = 8;
/// Blocks of one cycle.
const BLOCKS: usize = 5;
/// Blocks of the single cycle from a warm start: excess about 1e-6 after a 5 % change of R.
const BLOCKS_WARM: usize = 3;
/// Cycles at most: a bound, not a schedule; natural spectra stop at the second or third.
const CYCLES_MAX: usize = 12;
/// Stop when the captured sum grows by less than this share of what is not captured.
const TOLERANCE: f64 = 1e-9;
/// Spread of the captured eigenvalues from which f32 products no longer resolve the smallest.
const SPREAD_F32: f64 = 1e5;
/// A column that keeps less than this of its norm is spanned by the basis already.
const DEPENDENT: f64 = 1e-12;

/// How exact the answer has to be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effort<'a> {
    /// The correction of a last generation: from a cold start, to the tolerance; tr(R E E^T) scales the stop test.
    Final(f64),
    /// The correction at a solve point: one cycle from the vectors of the solve point before.
    Warm(&'a Mat<f64>),
    /// A candidate that will only be compared: one cycle from the neighbouring candidate's vectors.
    Candidate(Option<&'a Mat<f64>>),
}

/// Orthonormal columns that span the top-k eigenspace of G, best first; at least min(k, n) of them.
///
/// # Errors
/// A sentence, when products overflow or the dense eigensolver does not converge.
pub(super) fn top_subspace(
    operator: &ErrorOperator<'_>,
    k: usize,
    effort: Effort<'_>,
) -> Result<Mat<f64>, String> {
    let n = operator.n();
    let dense_max = match effort {
        Effort::Final(_) | Effort::Warm(_) => DENSE_MAX,
        Effort::Candidate(_) => DENSE_MAX_CANDIDATE,
    };
    if is_dense(n, k, dense_max) {
        return dense(operator, k, effort);
    }
    match effort {
        Effort::Final(error_without) => {
            cold(operator, k, CYCLES_MAX, operator.trace(error_without))
        }
        Effort::Candidate(None) => cold(operator, k, 2, 0.0),
        Effort::Warm(vectors) | Effort::Candidate(Some(vectors)) => {
            let cycle = cycle(operator, vectors.clone(), k, BLOCKS_WARM, false)?;
            Ok(cycle.vectors)
        }
    }
}

/// Whether G is formed: always for small n, and where a Krylov basis would be near n columns.
pub(super) const fn is_dense(n: usize, k: usize, dense_max: usize) -> bool {
    n <= dense_max || 4 * (k + EXTRA) > n
}

fn dense(operator: &ErrorOperator<'_>, k: usize, effort: Effort<'_>) -> Result<Mat<f64>, String> {
    let n = operator.n();
    let mut g = Mat::<f64>::zeros(n, n);
    for first in (0..n).step_by(DENSE_PANEL) {
        let width = DENSE_PANEL.min(n - first);
        let identity = Mat::from_fn(n, width, |i, j| f64::from(u8::from(i == first + j)));
        let columns = match effort {
            Effort::Final(_) | Effort::Warm(_) => operator.apply_f64(identity.as_ref()),
            Effort::Candidate(_) => operator.apply_f32(identity.as_ref()),
        };
        g.as_mut().subcols_mut(first, width).copy_from(&columns);
    }
    let (vectors, _) = eigen(&g)?;
    Ok(vectors.subcols(0, k.min(n)).to_owned())
}

/// Eigenvectors and eigenvalues of the symmetric part, largest first.
pub(super) fn eigen(g: &Mat<f64>) -> Result<(Mat<f64>, Vec<f64>), String> {
    let n = g.nrows();
    let symmetric = Mat::from_fn(n, n, |i, j| 0.5 * (g[(i, j)] + g[(j, i)]));
    if (0..n).any(|j| (0..n).any(|i| !symmetric[(i, j)].is_finite())) {
        return Err("products overflow: the weights or activations are too large".into());
    }
    let eigen = symmetric
        .self_adjoint_eigen(Side::Lower)
        .map_err(|e| format!("the eigensolver failed: {e:?}"))?;
    let values = (0..n).rev().map(|i| eigen.S()[i]).collect();
    Ok((eigen.U().reverse_cols().to_owned(), values))
}

fn cold(
    operator: &ErrorOperator<'_>,
    k: usize,
    cycles_max: usize,
    trace: f64,
) -> Result<Mat<f64>, String> {
    let mut found = cycle(
        operator,
        start(operator.n(), k / 2 + EXTRA),
        k,
        BLOCKS,
        false,
    )?;
    for _ in 1..cycles_max {
        let precise = found.spread > SPREAD_F32;
        let next = cycle(operator, found.vectors, k, BLOCKS, precise)?;
        let gained = next.captured - found.captured;
        found = next;
        // Near an exact fit only rounding moves.
        let rest = (trace - found.captured).max(1e-6 * trace);
        if gained <= TOLERANCE * rest {
            break;
        }
    }
    Ok(found.vectors)
}

struct Cycle {
    vectors: Mat<f64>,
    captured: f64,
    spread: f64,
}

/// One Krylov cycle from `block`: basis, Rayleigh-Ritz, the best k + 8 Ritz vectors.
fn cycle(
    operator: &ErrorOperator<'_>,
    mut block: Mat<f64>,
    k: usize,
    blocks: usize,
    precise: bool,
) -> Result<Cycle, String> {
    let n = operator.n();
    let capacity = (blocks * block.ncols()).min(n / 2).max(block.ncols());
    let mut basis = Mat::<f64>::zeros(n, capacity);
    let mut images = Mat::<f64>::zeros(n, capacity);
    let mut used = 0;
    for _ in 0..blocks {
        let fresh = orthonormalise(block, basis.as_ref().subcols(0, used), capacity - used);
        if fresh.ncols() == 0 {
            break; // The basis is invariant, or full.
        }
        let image = if precise {
            operator.apply_f64(fresh.as_ref())
        } else {
            operator.apply_f32(fresh.as_ref())
        };
        basis
            .as_mut()
            .subcols_mut(used, fresh.ncols())
            .copy_from(&fresh);
        images
            .as_mut()
            .subcols_mut(used, fresh.ncols())
            .copy_from(&image);
        used += fresh.ncols();
        block = image;
    }
    let basis = basis.as_ref().subcols(0, used);
    let mut small = Mat::zeros(used, used);
    matmul(
        small.as_mut(),
        Accum::Replace,
        basis.transpose(),
        images.as_ref().subcols(0, used),
        1.0,
        Par::Seq,
    );
    let (rotation, values) = eigen(&small)?;
    let kept = (k + EXTRA).min(used);
    let mut vectors = Mat::zeros(n, kept);
    matmul(
        vectors.as_mut(),
        Accum::Replace,
        basis,
        rotation.as_ref().subcols(0, kept),
        1.0,
        Par::Seq,
    );
    let top = &values[..k.min(used)];
    let smallest = top
        .last()
        .copied()
        .unwrap_or_default()
        .max(f64::MIN_POSITIVE);
    Ok(Cycle {
        vectors,
        captured: top.iter().sum(),
        spread: top.first().copied().unwrap_or_default() / smallest,
    })
}

/// An orthonormal basis of what `block` adds to `basis`, at most `room` columns: block Gram-Schmidt and
/// column Gram-Schmidt, both twice ("twice is enough"), dependent columns dropped.
fn orthonormalise(mut block: Mat<f64>, basis: MatRef<'_, f64>, room: usize) -> Mat<f64> {
    for pass in 0..2 {
        let norms: Vec<f64> = (0..block.ncols()).map(|j| block.col(j).norm_l2()).collect();
        if basis.ncols() > 0 {
            let mut along = Mat::zeros(basis.ncols(), block.ncols());
            matmul(
                along.as_mut(),
                Accum::Replace,
                basis.transpose(),
                block.as_ref(),
                1.0,
                Par::Seq,
            );
            matmul(
                block.as_mut(),
                Accum::Add,
                basis,
                along.as_ref(),
                -1.0,
                Par::Seq,
            );
        }
        let mut kept: Vec<Vec<f64>> = Vec::new();
        for (j, norm) in norms.iter().enumerate() {
            let mut column: Vec<f64> = block.col(j).iter().copied().collect();
            for other in &kept {
                let along: f64 = other.iter().zip(&column).map(|(a, b)| a * b).sum();
                column
                    .iter_mut()
                    .zip(other)
                    .for_each(|(c, o)| *c -= along * o);
            }
            let left = column.iter().map(|c| c * c).sum::<f64>().sqrt();
            // The second pass sees unit columns and drops nothing that the first one kept.
            if left.is_finite()
                && left > DEPENDENT * norm
                && left > 0.0
                && (pass > 0 || kept.len() < room)
            {
                column.iter_mut().for_each(|c| *c /= left);
                kept.push(column);
            }
        }
        block = Mat::from_fn(basis.nrows(), kept.len(), |i, j| kept[j][i]);
    }
    block
}

/// A fixed pseudo-random start (splitmix64), the same for every run.
fn start(n: usize, columns: usize) -> Mat<f64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    Mat::from_fn(n, columns, |_, _| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    })
}
