//! The decompositions, on matrices whose answers are known.

use crate::{all_close, close};
use nalgebra::{DMatrixView, DMatrixViewMut};
use qera_core::linalg::{
    BlockKrylovOptions, JACOBI_MAX_SWEEPS, NewtonSchulzLimits, block_krylov, block_krylov_kept,
    block_krylov_workspace_len, cholesky, jacobi_eigen, jacobi_eigen_workspace_len, jacobi_svd,
    jacobi_svd_workspace_len, newton_schulz, newton_schulz_workspace_len,
};

pub fn decompositions() -> bool {
    // Eigenvalues 9 and 1; columns of lengths 5 and 2; square root [[2, 1], [1, 2]].
    let symmetric = [5.0, 4.0, 4.0, 5.0];
    let (mut values, mut vectors, mut workspace) =
        ([0.0; 2], [0.0; 4], [0.0; jacobi_eigen_workspace_len(2)]);
    let eigen = jacobi_eigen(
        DMatrixViewMut::from_slice(&mut { symmetric }, 2, 2),
        &mut values,
        DMatrixViewMut::from_slice(&mut vectors, 2, 2),
        &mut workspace,
        JACOBI_MAX_SWEEPS,
    );
    let mut tall = [3.0, 4.0, 0.0, 0.0, 0.0, 2.0];
    let (mut sigma, mut v, mut workspace) =
        ([0.0; 2], [0.0; 4], [0.0; jacobi_svd_workspace_len(2)]);
    let svd = jacobi_svd(
        DMatrixViewMut::from_slice(&mut tall, 3, 2),
        &mut sigma,
        DMatrixViewMut::from_slice(&mut v, 2, 2),
        &mut workspace,
        JACOBI_MAX_SWEEPS,
    );
    let (mut root, mut inverse_root, mut workspace) =
        ([0.0; 4], [0.0; 4], [0.0; newton_schulz_workspace_len(2)]);
    let roots = newton_schulz(
        DMatrixView::from_slice(&symmetric, 2, 2),
        DMatrixViewMut::from_slice(&mut root, 2, 2),
        DMatrixViewMut::from_slice(&mut inverse_root, 2, 2),
        &mut workspace,
        NewtonSchulzLimits::default(),
    );
    let mut factor = [4.0, 2.0, 0.0, 5.0];
    let factored = cholesky(DMatrixViewMut::from_slice(&mut factor, 2, 2));
    factored.is_ok()
        && all_close(&factor, &[2.0, 1.0, 0.0, 2.0], 1e-15)
        && eigen.is_ok()
        && all_close(&values, &[9.0, 1.0], 1e-14)
        && svd.is_ok()
        && all_close(&sigma, &[5.0, 2.0], 1e-14)
        && roots.is_ok()
        && all_close(&root, &[2.0, 1.0, 1.0, 2.0], 1e-12)
        && all_close(
            &inverse_root,
            &[2.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0, 2.0 / 3.0],
            1e-12,
        )
}

pub fn top_eigenvectors() -> bool {
    const ORDER: usize = 48;
    const WANTED: usize = 2;
    const KEPT: usize = block_krylov_kept(ORDER, WANTED);
    let mut workspace = [0.0; block_krylov_workspace_len(ORDER, WANTED)];
    let (mut values, mut vectors) = ([0.0; KEPT], [0.0; ORDER * KEPT]);
    // The diagonal matrix of 1, 2, ..., 47 and 100, whose top eigenvalues are 100 and 47.
    let eigenvalue = |i: usize| {
        if i + 1 == ORDER {
            100.0
        } else {
            (i + 1) as f64
        }
    };
    let found = block_krylov(
        |x, mut y| {
            for j in 0..x.ncols() {
                for i in 0..ORDER {
                    y[(i, j)] = eigenvalue(i) * x[(i, j)];
                }
            }
        },
        WANTED,
        &BlockKrylovOptions::default(),
        None,
        &mut values,
        DMatrixViewMut::from_slice(&mut vectors, ORDER, KEPT),
        &mut workspace,
    );
    found.is_ok() && close(values[0], 100.0, 1e-9) && close(values[1], 47.0, 1e-9)
}
