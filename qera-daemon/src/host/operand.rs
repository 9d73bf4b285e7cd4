//! A large matrix, made ready once to be multiplied many times.

use core::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::products::products;
use crate::host::kernels::stored::{StoredNumbers, StoredRows};
use crate::host::rounding::narrow;
use crate::host::row_images::RowImages;

/// Rows widened at a time: so many that packing the vectors anew for them costs little.
pub(crate) const PIECE_ROWS: usize = 512;

/// A large f32 matrix, depth x n by columns, that a few vectors at a time are multiplied by, many
/// times: R, E, rows of a window. It is read as it lies.
#[derive(Debug)]
pub struct Operand<'a> {
    compute: Compute<'a>,
    matrix: ColumnMajor<'a>,
}

impl Operand<'_> {
    /// X^T B as b x n, for `x` = X^T (b x depth), by f32 products: 2 depth n b flops.
    #[must_use]
    pub fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        products::<f32, _>(self.compute, x, self.matrix)
    }

    /// Multiplies as `times` does, with products and sums in f64.
    #[must_use]
    pub fn times_f64(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        products::<f64, _>(self.compute, x, self.matrix)
    }

    /// X B as b x n for rows X (b x depth) as they lie, by f32 or by f64 products.
    pub(crate) fn times_rows(&self, rows: &[f32], in_f64: bool) -> Mat<f64> {
        let (matrix, depth) = (self.matrix, self.matrix.rows);
        let x = MatRef::from_row_major_slice(rows, rows.len() / depth, depth);
        if in_f64 {
            products::<f64, _>(self.compute, x, matrix)
        } else {
            products::<f32, _>(self.compute, x, matrix)
        }
    }

    /// One of the two.
    pub(crate) fn times_in(&self, x: MatRef<'_, f64>, in_f64: bool) -> Mat<f64> {
        if in_f64 {
            self.times_f64(x)
        } else {
            self.times(x)
        }
    }
}

/// Rows X in the form in which they came, made ready once to be multiplied by a few vectors, many
/// times; W holds their weights, and is the identity where they have none.
#[derive(Debug)]
pub(crate) struct RowsOperand<'a> {
    compute: Compute<'a>,
    rows: StoredRows<'a>,
}

/// How a few vectors are multiplied by rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowProducts {
    /// The factor by which every row is multiplied.
    pub(crate) root: f64,
    /// Whether f32 products are not enough.
    pub(crate) in_f64: bool,
}

impl RowsOperand<'_> {
    /// How many rows.
    pub(crate) const fn rows(&self) -> usize {
        self.rows.rows()
    }

    /// Numbers of a row.
    pub(crate) const fn in_features(&self) -> usize {
        self.rows.in_features
    }

    /// `root` W^1/2 X T for T^T (b x m), by f32 or by f64 products: the images of these rows, from
    /// `at` on. Their Gram matrix is `root`^2 T^T X^T W X T. Rows are widened in `wide`, some at a
    /// time.
    pub(crate) fn outputs(
        &self,
        t: MatRef<'_, f64>,
        by: RowProducts,
        wide: &mut Vec<f32>,
        at: usize,
        images: &mut RowImages,
    ) {
        let m = self.rows.in_features;
        for piece in pieces_of(self.rows.rows()) {
            let first = piece.start;
            let rows = ColumnMajor::new(self.widen(piece, wide), m);
            let rows = self.compute.operand(rows);
            let own = rows.times_in(t, by.in_f64);
            for (row, numbers) in (first..).zip(own.col_iter()) {
                images.set(at + row, self.root(by, row), numbers);
            }
        }
    }

    /// Takes `root` X^T W^1/2 Z off `sums` (b x m), for the images of these rows, from `at` on, as
    /// [`outputs`](Self::outputs) makes them.
    pub(crate) fn take_off(
        &self,
        images: &RowImages,
        at: usize,
        by: RowProducts,
        wide: &mut Vec<f32>,
        sums: &mut Mat<f64>,
    ) {
        let (b, m) = (images.vectors(), self.rows.in_features);
        let mut products = Mat::<f32>::zeros(b, m);
        for piece in pieces_of(self.rows.rows()) {
            let (first, count) = (piece.start, piece.len());
            let roots: Vec<f64> = piece.clone().map(|row| self.root(by, row)).collect();
            let values = self.widen(piece, wide);
            match images {
                RowImages::Exact(z) => {
                    let z = Mat::from_fn(b, count, |i, j| roots[j] * z[(i, at + first + j)]);
                    let x = Mat::from_fn(count, m, |i, j| f64::from(values[i * m + j]));
                    let x = x.as_ref();
                    matmul(sums.as_mut(), Accum::Add, z.as_ref(), x, -1.0, Par::Seq);
                }
                RowImages::Narrow(z) => {
                    let z = |i, j| narrow(roots[j]) * z[(i, at + first + j)];
                    let z = Mat::from_fn(b, count, z);
                    let x = ColumnMajor::new(values, m);
                    let (x, to) = (x.as_mat().transpose(), products.as_mut());
                    matmul(to, Accum::Add, z.as_ref(), x, 1.0, Par::Seq);
                }
            }
        }
        for (to, from) in sums.col_iter_mut().zip(products.col_iter()) {
            let pairs = to.iter_mut().zip(from.iter());
            pairs.for_each(|(to, from)| *to -= f64::from(*from));
        }
    }

    /// The factor by which a row is multiplied.
    fn root(&self, by: RowProducts, row: usize) -> f64 {
        by.root * self.rows.weight_of(row).sqrt()
    }

    /// Some rows in f32: as they lie where they are.
    fn widen<'w>(&'w self, rows: Range<usize>, wide: &'w mut Vec<f32>) -> &'w [f32] {
        let m = self.rows.in_features;
        if let StoredNumbers::Floats(values) = self.rows.numbers {
            return &values[rows.start * m..rows.end * m];
        }
        wide.resize(wide.len().max(rows.len() * m), 0.0);
        let wide = &mut wide[..rows.len() * m];
        self.rows.widen(rows.start * m..rows.end * m, wide);
        wide
    }
}

/// Cuts rows into the pieces that are widened at a time.
fn pieces_of(rows: usize) -> impl Iterator<Item = Range<usize>> {
    let firsts = (0..rows).step_by(PIECE_ROWS);
    firsts.map(move |first| first..(first + PIECE_ROWS).min(rows))
}

impl<'a> Compute<'a> {
    /// Makes rows ready.
    #[must_use]
    pub(crate) const fn rows_operand(self, rows: StoredRows<'a>) -> RowsOperand<'a> {
        RowsOperand {
            compute: self,
            rows,
        }
    }

    /// Makes a matrix ready.
    #[must_use]
    pub const fn operand(self, matrix: ColumnMajor<'a>) -> Operand<'a> {
        Operand {
            compute: self,
            matrix,
        }
    }
}
