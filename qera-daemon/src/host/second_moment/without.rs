//! R less some of the rows that it is the mean of: what a fold is solved from.
//!
//! It is never formed: it is (N R - X^T X) / (N - n), and X^T (X T) takes less than X^T X as long as T has fewer columns than
//! R.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use crate::host::column_major::ColumnMajor;
use crate::host::compute::Compute;
use crate::host::kernels::stored::StoredRows;
use crate::host::rounding::narrow;
use crate::host::second_moment::prepared::PreparedR;

/// R without some rows, in the scaling of the R that it comes of.
#[derive(Debug)]
pub(crate) struct WithoutRows<'a> {
    compute: Compute<'a>,
    r: &'a PreparedR<'a>,
    /// The rows, block by block.
    blocks: Vec<StoredRows<'a>>,
    /// It is `kept` R - `taken` X^T X.
    kept: f64,
    taken: f64,
}

impl<'a> WithoutRows<'a> {
    /// Takes these blocks out of the mean over `rows`; `left` rows remain, at least one.
    pub(crate) fn new(
        compute: Compute<'a>,
        r: &'a PreparedR<'a>,
        blocks: Vec<StoredRows<'a>>,
        rows: f64,
        left: f64,
    ) -> Self {
        Self {
            compute,
            r,
            blocks,
            kept: rows / left,
            taken: 1.0 / (left * r.scale),
        }
    }

    /// It times T, for T^T (b x m): b x m.
    pub(crate) fn times(&self, t: MatRef<'_, f64>) -> Mat<f64> {
        let (b, m) = (t.nrows(), t.ncols());
        let mut rt = self.r.times(t) * faer::Scale(self.kept);
        for block in &self.blocks {
            let values = block.widened();
            let rows = ColumnMajor::new(&values, m);
            let xt = self.compute.operand(rows).times(t);
            let xt = Mat::from_fn(b, xt.ncols(), |i, j| narrow(self.taken * xt[(i, j)]));
            let mut taken = Mat::<f32>::zeros(b, m);
            matmul(
                taken.as_mut(),
                Accum::Replace,
                xt.as_ref(),
                rows.as_mat().transpose(),
                1.0,
                Par::Seq,
            );
            for (to, from) in rt.col_iter_mut().zip(taken.col_iter()) {
                let from = from.iter().map(|x| f64::from(*x));
                to.iter_mut().zip(from).for_each(|(to, from)| *to -= from);
            }
        }
        rt
    }
}
