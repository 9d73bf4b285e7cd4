//! X^T X of a block of rows on the host: f32 products, lower triangle only.
//!
//! Half the flops of the full product; faer picks its kernel (AVX-512, AVX2, portable) at run time. One
//! thread: sites are the unit of parallel work, so the bytes do not depend on the number of threads.

use faer::linalg::matmul::triangular::{BlockStructure, matmul};
use faer::{Accum, MatMut, MatRef, Par};

/// Rows in one f32 product; more are folded in pieces, so that f32 sums stay short
/// (entries of R within about 1e-6 of sqrt(R_ii R_jj)).
pub const ROWS_MAX: usize = 2048;

/// Writes X^T X of `rows` (row-major, at most [`ROWS_MAX`] rows) to the lower triangle of `sums`
/// (in_features x in_features, column-major); the upper triangle is left as it is.
pub(super) fn products(rows: &[f32], in_features: usize, sums: &mut [f32]) {
    update(rows, in_features, Accum::Replace, 1.0, sums);
}

/// Adds -`scale` X^T X of `rows` to the lower triangle of `sums`: leaves held-out rows out of R.
pub fn subtract_products(rows: &[f32], in_features: usize, scale: f32, sums: &mut [f32]) {
    update(rows, in_features, Accum::Add, -scale, sums);
}

fn update(rows: &[f32], in_features: usize, accum: Accum, alpha: f32, sums: &mut [f32]) {
    // Rows by rows is X^T by columns: in_features x count.
    let transposed = MatRef::from_column_major_slice(rows, in_features, rows.len() / in_features);
    matmul(
        MatMut::from_column_major_slice_mut(sums, in_features, in_features),
        BlockStructure::TriangularLower,
        accum,
        transposed,
        BlockStructure::Rectangular,
        transposed.transpose(),
        BlockStructure::Rectangular,
        alpha,
        Par::Seq,
    );
}
