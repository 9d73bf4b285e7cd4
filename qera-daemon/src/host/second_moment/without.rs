//! R less some of the rows that it is the mean of: what a fold is solved from.
//!
//! It is never formed: it is (N R - X^T X) / (N - n), applied.

use faer::{Mat, MatRef};

use crate::host::compute::Compute;
use crate::host::kernels::stored::StoredRows;
use crate::host::operand::RowsOperand;
use crate::host::second_moment::prepared::PreparedR;

/// R without some rows, in the scaling of the R that it comes of.
#[derive(Debug)]
pub(crate) struct WithoutRows<'a> {
    r: &'a PreparedR<'a>,
    /// The rows, block by block.
    blocks: Vec<RowsOperand<'a>>,
    /// It is `kept` R - `taken` X^T X.
    kept: f64,
    taken: f64,
}

impl<'a> WithoutRows<'a> {
    /// Takes these blocks out of the mean over `rows`; `left` rows remain, at least one.
    pub(crate) fn new(
        compute: Compute<'a>,
        r: &'a PreparedR<'a>,
        blocks: impl Iterator<Item = StoredRows<'a>>,
        rows: f64,
        left: f64,
    ) -> Self {
        Self {
            r,
            blocks: blocks.map(|block| compute.rows_operand(block)).collect(),
            kept: rows / left,
            taken: 1.0 / (left * r.scale),
        }
    }

    /// It times T, for T^T (b x m): b x m.
    pub(crate) fn times(&self, t: MatRef<'_, f64>) -> Mat<f64> {
        let mut rt = self.r.times(t) * faer::Scale(self.kept);
        for block in &self.blocks {
            if self.r.in_f64 {
                rt -= block.gram_times_f64(t, self.taken);
                continue;
            }
            let taken = block.gram_times(t, self.taken);
            for (to, from) in rt.col_iter_mut().zip(taken.col_iter()) {
                let from = from.iter().map(|x| f64::from(*x));
                to.iter_mut().zip(from).for_each(|(to, from)| *to -= from);
            }
        }
        rt
    }
}
