//! E = W - W~ of one layer, as a checkpoint stores weights, and its products in f64.
//!
//! E is widened a block at a time, which stays in the second-level cache while it is multiplied. Blocks are cut by sizes
//! alone.

use core::ops::Range;

use faer::linalg::matmul::matmul;
use faer::prelude::ReborrowMut;
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::checkpoint::Layer;
use crate::kernels::Host;

/// The quantization error of a layer: m x n by columns, which is the stored [n, m] by rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorMatrix<'a> {
    pub(super) values: &'a [f32],
    pub(super) m: usize,
    pub(super) n: usize,
}

impl<'a> ErrorMatrix<'a> {
    /// A matrix of the layer's shape.
    pub(super) const fn of(layer: &Layer, values: &'a [f32]) -> Self {
        Self {
            values,
            m: layer.in_features,
            n: layer.out_features,
        }
    }

    pub(super) fn as_mat(&self) -> MatRef<'_, f32> {
        MatRef::from_column_major_slice(self.values, self.m, self.n)
    }

    /// E V in f64: 2 m n b flops.
    pub(super) fn times(&self, host: Host<'_>, v: MatRef<'_, f64>) -> Mat<f64> {
        let mut product = Mat::zeros(self.m, v.ncols());
        let pieces = row_pieces(product.as_mut(), piece(self.m));
        host.cores.spread(pieces, |(rows, mut product)| {
            let mut memory = vec![0.0; WIDE.min(rows.len() * self.n)];
            for columns in ranges(self.n, piece(self.n)) {
                let block = self.wide(rows.clone(), columns.clone(), &mut memory);
                let v = v.subrows(columns.start, columns.len());
                matmul(product.rb_mut(), Accum::Add, block, v, 1.0, Par::Seq);
            }
        });
        product
    }

    /// E^T U in f64: 2 m n b flops.
    pub(super) fn transposed_times(&self, host: Host<'_>, u: MatRef<'_, f64>) -> Mat<f64> {
        let mut product = Mat::zeros(self.n, u.ncols());
        let pieces = row_pieces(product.as_mut(), piece(self.n));
        host.cores.spread(pieces, |(columns, mut product)| {
            let mut memory = vec![0.0; WIDE.min(self.m * columns.len())];
            for rows in ranges(self.m, piece(self.m)) {
                let block = self.wide(rows.clone(), columns.clone(), &mut memory);
                let u = u.subrows(rows.start, rows.len());
                let block = block.transpose();
                matmul(product.rb_mut(), Accum::Add, block, u, 1.0, Par::Seq);
            }
        });
        product
    }

    /// A block of E in f64.
    fn wide<'w>(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        memory: &'w mut [f64],
    ) -> MatRef<'w, f64> {
        let memory = &mut memory[..rows.len() * columns.len()];
        for (to, j) in memory.chunks_exact_mut(rows.len()).zip(columns.clone()) {
            let from = &self.values[j * self.m..][rows.clone()];
            to.iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = f64::from(*from));
        }
        MatRef::from_column_major_slice(memory, rows.len(), columns.len())
    }
}

/// Rows or columns of a block that is widened at a time, at most.
const PIECE: usize = 384;
/// Numbers of such a block: what stays in the second-level cache.
pub(super) const WIDE: usize = PIECE * PIECE;

/// Pieces of equal length.
const fn piece(length: usize) -> usize {
    let pieces = length.div_ceil(PIECE);
    length.div_ceil(if pieces > 0 { pieces } else { 1 })
}

fn ranges(length: usize, piece: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length)
        .step_by(piece.max(1))
        .map(move |first| first..(first + piece).min(length))
}

/// The rows of a matrix in pieces.
fn row_pieces(mut rest: MatMut<'_, f64>, piece: usize) -> Vec<(Range<usize>, MatMut<'_, f64>)> {
    let mut pieces = Vec::new();
    for rows in ranges(rest.nrows(), piece) {
        let (own, after) = rest.split_at_row_mut(rows.len());
        pieces.push((rows, own));
        rest = after;
    }
    pieces
}
