//! A large matrix, made ready once to be multiplied many times.

use faer::{Mat, MatRef};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::page_vec::{Floats, PageVec};
use crate::host::kernels::products::products;

/// A large f32 matrix, depth x n by columns, that a few vectors at a time are multiplied by, many times: R, E, rows of a window. It
/// is made ready once, because a device would have it uploaded; here it is read as it lies.
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

impl<'a> Compute<'a> {
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
