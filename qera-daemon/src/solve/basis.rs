//! An orthonormal basis that grows block by block, and Rayleigh-Ritz on it: what all Krylov methods here share.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};

/// A column of which the basis leaves less than this is spanned by it.
const SPANNED: f64 = 1e-12;
/// A column of which the basis leaves less than this is projected again: what rounding leaves along the basis stays below
/// 1e-10, which Rayleigh-Ritz does not notice.
const AGAIN_BELOW: f64 = 1e-6;
/// A pivot below this share of 1 makes the Cholesky factor of a Gram matrix doubtful.
const PIVOT_MIN: f64 = 1e-6;
/// A direction whose square is below this share of the strongest one's is noise of the Gram matrix.
const NOISE: f64 = 1e-13;

/// What `block` adds to the orthonormal columns of `basis`, orthonormal itself, at most `room` columns.
///
/// Block Gram-Schmidt, and within the block by its Gram matrix, columns scaled to 1 first: by its Cholesky factor, or,
/// where columns depend on each other, by its eigenvectors, which say which directions are there. Products only, so
/// that it runs at the speed of a matrix product: 4 n s b + 8 n b^2 flops (CholeskyQR2: Yamamoto et al., ETNA 44 (2015) 306;
/// by eigenvectors: Stathopoulos and Wu, SIAM J. Sci. Comput. 23 (2002) 2165).
pub(super) fn orthonormalise(mut block: Mat<f64>, basis: MatRef<'_, f64>, room: usize) -> Mat<f64> {
    let before: Vec<f64> = block.col_iter().map(|c| c.norm_l2()).collect();
    let mut least = 1.0_f64;
    if basis.ncols() > 0 {
        project_out(&mut block, basis);
        let left = block.col_iter().zip(&before);
        least = left
            .filter(|(_, before)| **before > 0.0)
            .map(|(column, before)| column.norm_l2() / before)
            .fold(1.0, f64::min);
    }
    scale_columns(&mut block, &before);
    let (mut block, even) = orthonormal(block, room);
    if block.ncols() > 0 && (least < AGAIN_BELOW || !even) {
        if basis.ncols() > 0 {
            project_out(&mut block, basis);
        }
        let ones = vec![1.0; block.ncols()];
        scale_columns(&mut block, &ones);
    }
    let most = block.ncols();
    orthonormal(block, most).0
}

fn project_out(block: &mut Mat<f64>, basis: MatRef<'_, f64>) {
    let along = product(basis.transpose(), block.as_ref());
    matmul(
        block.as_mut(),
        Accum::Add,
        basis,
        along.as_ref(),
        -1.0,
        Par::Seq,
    );
}

/// Columns to length 1; those of which nothing was left to 0.
fn scale_columns(block: &mut Mat<f64>, before: &[f64]) {
    for (column, before) in block.col_iter_mut().zip(before) {
        let norm = column.norm_l2();
        let fresh = norm.is_finite() && norm > SPANNED * before;
        let to = if fresh { 1.0 / norm } else { 0.0 };
        column
            .iter_mut()
            .for_each(|x| *x = if fresh { *x * to } else { 0.0 });
    }
}

/// An orthonormal basis of columns of length 1 or 0, at most `most`, and whether they were far from depending on each other.
fn orthonormal(block: Mat<f64>, most: usize) -> (Mat<f64>, bool) {
    let gram = product(block.transpose(), block.as_ref());
    if block.ncols() <= most
        && let Ok(factor) = gram.llt(Side::Lower)
        && (0..block.ncols()).all(|j| factor.L()[(j, j)].powi(2) > PIVOT_MIN)
    {
        let mut transposed = block.transpose().to_owned();
        factor
            .L()
            .solve_lower_triangular_in_place(transposed.as_mut());
        return (transposed.transpose().to_owned(), true);
    }
    let none = Mat::zeros(block.nrows(), 0);
    let Ok((mut rotation, values)) = eigen(&gram) else {
        return (none, false);
    };
    let kept = values
        .iter()
        .take(most)
        .take_while(|&&value| value > NOISE * values[0])
        .count();
    for (column, value) in rotation.col_iter_mut().zip(&values).take(kept) {
        let to = 1.0 / value.sqrt();
        column.iter_mut().for_each(|x| *x *= to);
    }
    let found = product(block.as_ref(), rotation.as_ref().subcols(0, kept));
    (found, false)
}

/// X Y, single-threaded.
pub(super) fn product(x: MatRef<'_, f64>, y: MatRef<'_, f64>) -> Mat<f64> {
    let mut product = Mat::zeros(x.nrows(), y.ncols());
    matmul(product.as_mut(), Accum::Replace, x, y, 1.0, Par::Seq);
    product
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

/// A fixed pseudo-random start (splitmix64), the same for every run.
pub(super) fn start(n: usize, columns: usize) -> Mat<f64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    Mat::from_fn(n, columns, |_, _| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    })
}
