//! A large matrix, made ready once to be multiplied many times.

use core::ops::Range;

use faer::linalg::matmul::matmul;
use faer::prelude::ReborrowMut;
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::page_vec::{Floats, PageVec};
use crate::host::kernels::products::products;
use crate::host::kernels::stored::{StoredNumbers, StoredRows};
use crate::host::offload::uploaded::Uploaded;
use crate::host::rounding::narrow;

/// Rows widened at a time: so many that packing the vectors anew for them costs little.
pub(crate) const PIECE_ROWS: usize = 512;

/// A large f32 matrix, depth x n by columns, that a few vectors at a time are multiplied by, many
/// times: R, E, rows of a window. Here it is read as it lies. Where a device is lent, what serves
/// many products is uploaded to it once, and multiplied there until that fails.
#[derive(Debug)]
pub struct Operand<'a> {
    compute: Compute<'a>,
    values: Floats<'a>,
    rows: usize,
    uploaded: Option<Uploaded<'a>>,
}

impl Operand<'_> {
    /// X^T B as b x n, for `x` = X^T (b x depth), by f32 products: 2 depth n b flops.
    #[must_use]
    pub fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let there = self.uploaded.as_ref().and_then(|there| there.times(x));
        there.unwrap_or_else(|| products::<f32>(self.compute, x, self.matrix()))
    }

    /// Multiplies as `times` does, with products and sums in f64.
    #[must_use]
    pub fn times_f64(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        let there = self.uploaded.as_ref().and_then(|there| there.times_f64(x));
        there.unwrap_or_else(|| products::<f64>(self.compute, x, self.matrix()))
    }

    fn matrix(&self) -> ColumnMajor<'_> {
        ColumnMajor::new(&self.values, self.rows)
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

    /// `root` W^1/2 X T for T^T (b x m): b x rows, by f32 or by f64 products. Its Gram matrix is
    /// `root`^2 T^T X^T W X T. Rows are widened in `wide`, some at a time.
    pub(crate) fn outputs(
        &self,
        t: MatRef<'_, f64>,
        by: RowProducts,
        wide: &mut Vec<f32>,
        mut outputs: MatMut<'_, f64>,
    ) {
        let m = self.rows.in_features;
        for piece in pieces_of(self.rows.rows()) {
            let first = piece.start;
            let rows = ColumnMajor::new(self.widen(piece, wide), m);
            let rows = self.compute.operand(rows);
            let own = if by.in_f64 {
                rows.times_f64(t)
            } else {
                rows.times(t)
            };
            for (j, column) in own.col_iter().enumerate() {
                let root = by.root * self.rows.weight_of(first + j).sqrt();
                let to = outputs.rb_mut().col_mut(first + j);
                to.iter_mut()
                    .zip(column.iter())
                    .for_each(|(to, y)| *to = root * y);
            }
        }
    }

    /// Takes `root` X^T W^1/2 Z off `sums` (b x m), for Z^T (b x rows) such as
    /// [`outputs`](Self::outputs) makes.
    pub(crate) fn take_off(
        &self,
        z: MatRef<'_, f64>,
        by: RowProducts,
        wide: &mut Vec<f32>,
        sums: &mut Mat<f64>,
    ) {
        let (b, m) = (z.nrows(), self.rows.in_features);
        let root = |row: usize| by.root * self.rows.weight_of(row).sqrt();
        let mut products = Mat::<f32>::zeros(b, m);
        for piece in pieces_of(self.rows.rows()) {
            let (first, count) = (piece.start, piece.len());
            let values = self.widen(piece, wide);
            let z = Mat::from_fn(b, count, |i, j| root(first + j) * z[(i, first + j)]);
            if by.in_f64 {
                let x = Mat::from_fn(count, m, |i, j| f64::from(values[i * m + j]));
                let x = x.as_ref();
                matmul(sums.as_mut(), Accum::Add, z.as_ref(), x, -1.0, Par::Seq);
                continue;
            }
            let z = Mat::from_fn(b, count, |i, j| narrow(z[(i, j)]));
            let x = ColumnMajor::new(values, m);
            let (x, to) = (x.as_mat().transpose(), products.as_mut());
            matmul(to, Accum::Add, z.as_ref(), x, 1.0, Par::Seq);
        }
        for (to, from) in sums.col_iter_mut().zip(products.col_iter()) {
            let pairs = to.iter_mut().zip(from.iter());
            pairs.for_each(|(to, from)| *to -= f64::from(*from));
        }
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

    /// Makes a matrix ready that is lent, for products that are soon done; it is read as it lies.
    #[must_use]
    pub const fn operand(self, matrix: ColumnMajor<'a>) -> Operand<'a> {
        Operand {
            compute: self,
            values: Floats::Lent(matrix.values),
            rows: matrix.rows,
            uploaded: None,
        }
    }

    /// Makes a matrix ready that is lent, for many products.
    #[must_use]
    pub(crate) fn lasting_operand(self, matrix: ColumnMajor<'a>) -> Operand<'a> {
        self.uploaded(Floats::Lent(matrix.values), matrix.rows)
    }

    /// Makes a matrix ready that was made for many products, columns of `rows` numbers.
    #[must_use]
    pub(crate) fn own_operand(self, values: PageVec<f32>, rows: usize) -> Operand<'a> {
        self.uploaded(Floats::Owned(values), rows)
    }

    fn uploaded(self, values: Floats<'a>, rows: usize) -> Operand<'a> {
        let device = self.device;
        Operand {
            compute: self,
            uploaded: device.and_then(|device| Uploaded::new(device, &values, rows)),
            values,
            rows,
        }
    }
}
