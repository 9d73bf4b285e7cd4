//! A large matrix, made ready once to be multiplied many times.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::dense::product;
use crate::host::kernels::page_vec::{Floats, PageVec};
use crate::host::kernels::products::products;
use crate::host::kernels::stored::StoredRows;
use crate::host::rounding::narrow;

/// Rows widened to f64 at a time.
const WIDENED_ROWS: usize = 64;

/// A large f32 matrix, depth x n by columns, that a few vectors at a time are multiplied by, many
/// times: R, E, rows of a window. It is made ready once, because a device would have it uploaded;
/// here it is read as it lies.
#[derive(Debug)]
pub struct Operand<'a> {
    compute: Compute<'a>,
    values: Floats<'a>,
    rows: usize,
}

impl Operand<'_> {
    /// X^T B as b x n, for `x` = X^T (b x depth), by f32 products: 2 depth n b flops.
    #[must_use]
    pub fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        products::<f32>(self.compute, x, self.matrix())
    }

    /// The same with products and sums in f64.
    #[must_use]
    pub fn times_f64(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        products::<f64>(self.compute, x, self.matrix())
    }

    fn matrix(&self) -> ColumnMajor<'_> {
        ColumnMajor::new(&self.values, self.rows)
    }
}

/// Rows X in the form in which they came, made ready once to have X^T W X applied to a few vectors,
/// many times; W holds their weights, and is the identity where they have none.
#[derive(Debug)]
pub(crate) struct RowsOperand<'a> {
    compute: Compute<'a>,
    rows: StoredRows<'a>,
}

impl RowsOperand<'_> {
    /// `scale` X^T W X T for T^T (b x m): b x m, by f32 products and sums. 4 rows m b flops, which is
    /// less than forming X^T X takes as long as T has fewer columns than R.
    pub(crate) fn gram_times(&self, t: MatRef<'_, f64>, scale: f64) -> Mat<f32> {
        let (b, m) = (t.nrows(), t.ncols());
        // In f32 while they are used: kept so they would take twice the memory.
        let values = self.rows.widened();
        let rows = ColumnMajor::new(&values, m);
        let xt = self.compute.operand(rows).times(t);
        let xt = Mat::from_fn(b, xt.ncols(), |i, j| {
            narrow(scale * self.rows.weight_of(j) * xt[(i, j)])
        });
        let mut gram = Mat::<f32>::zeros(b, m);
        let x = rows.as_mat().transpose();
        matmul(gram.as_mut(), Accum::Replace, xt.as_ref(), x, 1.0, Par::Seq);
        gram
    }

    /// The same with products and sums in f64.
    pub(crate) fn gram_times_f64(&self, t: MatRef<'_, f64>, scale: f64) -> Mat<f64> {
        let (b, m) = (t.nrows(), t.ncols());
        let mut gram = Mat::zeros(b, m);
        for first in (0..self.rows.rows()).step_by(WIDENED_ROWS) {
            let last = (first + WIDENED_ROWS).min(self.rows.rows());
            let values = self.rows.slice(first..last).widened();
            let x = Mat::from_fn(last - first, m, |i, j| f64::from(values[i * m + j]));
            let mut xt = product(t, x.transpose());
            if self.rows.weights.is_some() {
                let columns = xt.col_iter_mut().zip(first..last);
                columns.for_each(|(mut column, row)| column *= self.rows.weight_of(row));
            }
            matmul(
                gram.as_mut(),
                Accum::Add,
                xt.as_ref(),
                x.as_ref(),
                scale,
                Par::Seq,
            );
        }
        gram
    }
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

    /// Makes a matrix ready that is lent; it is read as it lies.
    #[must_use]
    pub const fn operand(self, matrix: ColumnMajor<'a>) -> Operand<'a> {
        Operand {
            compute: self,
            values: Floats::Lent(matrix.values),
            rows: matrix.rows,
        }
    }

    /// Makes a matrix ready that was made for this, columns of `rows` numbers.
    #[must_use]
    pub(crate) const fn own_operand(self, values: PageVec<f32>, rows: usize) -> Operand<'a> {
        Operand {
            compute: self,
            values: Floats::Owned(values),
            rows,
        }
    }
}
